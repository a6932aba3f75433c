"""The numbers behind `graphc.loops.maths`: one `Table` per float dtype, plain data.

Enter at `TABLES`. The polynomials were fitted by least squares on Chebyshev nodes, reweighted towards minimax, with
each coefficient rounded in turn and the rest fitted again; the comments give the error relative to the function.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.types import DType, float32, float64, int32, int64

Coefficients = tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """A float format and the constants of its functions. Coefficients go from the lowest power up.

    bits, bias: of the stored mantissa and of the exponent; integer: the dtype of the same width.
    ln2_high has so few bits that its product with every exponent (and half exponent) is exact.
    """

    integer: DType
    bits: int
    bias: int
    log2e: float
    ln2_high: float
    ln2_low: float
    exp_range: tuple[float, float]  # exp is 0 below and overflows above
    expm1_low: float  # expm1 is -1 below
    tiny: float  # below it, expm1(x) and log1p(x) are x
    log_split: int  # the bits of the smallest mantissa, 0.75, whose exponent counts as 0
    tanh_range: tuple[float, float]  # polynomial below, 1 above
    exp: Coefficients  # (exp(r) - 1 - r) / r^2 for |r| < ln(2) / 2
    expm1: Coefficients  # the same, one degree higher: exp(x) - 1 has no leading 1 that hides its error
    log: Coefficients  # (log1p(f) - f) / f^2 for -0.25 <= f < 0.5
    tanh: Coefficients  # (tanh(x) - x) / x^3 as a polynomial in x^2, x < tanh_range[0]

    @property
    def magic(self) -> float:
        """Added to a number of small magnitude, it leaves the nearest integer in the low bits of the mantissa."""
        return 1.5 * 2.0**self.bits


# fmt: off
TABLES: dict[DType, Table] = {
    float32: Table(
        integer=int32,
        bits=23,
        bias=127,
        log2e=1.4426950216293335,
        ln2_high=0.693145751953125,
        ln2_low=1.428606765330187e-06,
        exp_range=(-104.0, 89.0),
        expm1_low=-17.5,
        tiny=2.0**-25,
        log_split=0x3F400000,
        tanh_range=(0.9765625, 9.125),
        exp=(0.5, 0.1666654348373413, 0.04166644066572189, 0.008366545662283897, 0.0013937230687588453),  # 2^-26.1
        expm1=(  # 2^-31.1
            0.5, 0.1666666716337204, 0.041666485369205475, 0.008333197794854641, 0.0013933014124631882,
            0.00019953484297730029,
        ),
        log=(  # 2^-27.5
            -0.5, 0.3333345353603363, -0.25000113248825073, 0.19990713894367218, -0.166465625166893,
            0.1447882354259491, -0.13168492913246155, 0.10476195067167282, -0.04514790326356888,
        ),
        tanh=(  # 2^-28.1
            -0.3333330452442169, 0.133325457572937, -0.05389447137713432, 0.02153543010354042, -0.00802753958851099,
            0.002367863431572914, -0.0003795797238126397,
        ),
    ),
    float64: Table(
        integer=int64,
        bits=52,
        bias=1023,
        log2e=1.4426950408889634,
        ln2_high=0.6931471805601177,
        ln2_low=-1.7239444525614835e-13,
        exp_range=(-746.0, 710.0),
        expm1_low=-38.0,
        tiny=2.0**-54,
        log_split=0x3FE8000000000000,
        tanh_range=(0.9765625, 19.125),
        exp=(  # 2^-55.6
            0.5000000000000006, 0.16666666666666682, 0.04166666666657351, 0.008333333333316989, 0.0013888888932435833,
            0.00019841269897710685, 2.48015043605852e-05, 2.7557232786976414e-06, 2.762636553219763e-07,
            2.5112921566212663e-08,
        ),
        expm1=(  # 2^-61.6
            0.5, 0.16666666666666677, 0.041666666666666685, 0.00833333333332144, 0.0013888888888872943,
            0.0001984126988657612, 2.4801587350438195e-05, 2.7557243778735844e-06, 2.7557250398127126e-07,
            2.5109181513944932e-08, 2.0922294225139762e-09,
        ),
        log=(  # 2^-56.4
            -0.5, 0.33333333333333753, -0.25000000000010575, 0.19999999999848775, -0.16666666663800536,
            0.14285714300109736, -0.12500000290787036, 0.11111110762852527, -0.09999985522795217, 0.09090893301789862,
            -0.0833370532354682, 0.07693383424773213, -0.07138561844965763, 0.0664337024405608, -0.06250051523140103,
            0.06083334124716843, -0.05967556550387593, 0.050674695990516, -0.029364952224151378, 0.00808113369124546,
        ),
        tanh=(  # 2^-57.0
            -0.33333333333333115, 0.13333333333309605, -0.05396825395916515, 0.021869488358997234,
            -0.008863233465348888, 0.0035921122976356194, -0.0014557514002090685, 0.0005897136819397873,
            -0.0002382583869230662, 9.511609011949644e-05, -3.648856016161775e-05, 1.2664038086177035e-05,
            -3.5907619834216583e-06, 7.083290475322104e-07, -7.030603713499468e-08,
        ),
    ),
}
# fmt: on
