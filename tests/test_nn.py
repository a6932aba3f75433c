"""Layers and losses: values against NumPy, names, state dicts, files, messages."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.build import constant, parameter, placeholder
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from graphc.nn import Linear, Module, ReLU, Sequential, functional, load, save
from tests.array_checks import agree, differentiable

RNG = np.random.default_rng(7)
LOGITS = RNG.normal(0, 3, (5, 4))
LABELS = np.array([0, 3, 1, 1, 2])


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def test_softmax_and_its_logarithm() -> None:
    x = placeholder("x", ("n", 4), "float64")
    np.testing.assert_allclose(functional.log_softmax(x).eval({x: LOGITS}), log_softmax(LOGITS), rtol=1e-14)
    np.testing.assert_allclose(
        functional.softmax(x, axis=0).eval({x: LOGITS}), np.exp(log_softmax(LOGITS, 0)), rtol=1e-14
    )
    extreme = np.array([[1000.0, 0.0, -1000.0, 1000.0]])
    np.testing.assert_array_equal(functional.softmax(x).eval({x: extreme}), [[0.5, 0, 0, 0.5]])
    np.testing.assert_array_equal(functional.log_softmax(x).eval({x: extreme})[0, 1], -1000 - np.log(2.0))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_cross_entropy(reduction: str, dtype: str) -> None:
    x, y = placeholder("x", ("n", 4), "float64"), placeholder("y", ("n",), dtype)
    losses = -log_softmax(LOGITS)[np.arange(5), LABELS]
    expected = losses if reduction == "none" else getattr(losses, reduction)()
    loss = functional.cross_entropy(x, y, reduction=reduction)
    np.testing.assert_allclose(loss.eval({x: LOGITS, y: LABELS.astype(dtype)}), expected, rtol=1e-14)


def test_cross_entropy_of_probabilities_of_one_row_and_of_an_image() -> None:
    p = RNG.dirichlet(np.ones(4), 5)
    x, y = placeholder("x", ("n", 4), "float64"), placeholder("y", ("n", 4), "float64")
    expected = -(p * log_softmax(LOGITS)).sum(1).mean()
    np.testing.assert_allclose(functional.cross_entropy(x, y).eval({x: LOGITS, y: p}), expected, rtol=1e-14)
    row, label = placeholder("row", (4,), "float64"), placeholder("label", (), "int64")
    one = functional.cross_entropy(row, label).eval({row: LOGITS[0], label: 2})
    np.testing.assert_allclose(one, -log_softmax(LOGITS[0])[2], rtol=1e-14)
    image, classes = RNG.normal(size=(2, 3, 4, 5)), RNG.integers(0, 3, (2, 4, 5))
    loss = functional.cross_entropy(constant(image), constant(classes)).eval()
    picked = np.take_along_axis(log_softmax(image, 1), classes[:, None], 1)
    np.testing.assert_allclose(loss, -picked.mean(), rtol=1e-14)


def test_mse_and_binary_cross_entropy() -> None:
    x, y = RNG.normal(size=6), RNG.integers(0, 2, 6)
    np.testing.assert_allclose(
        functional.mse_loss(constant(x), constant(x[::-1].copy())).eval(), ((x - x[::-1]) ** 2).mean()
    )
    expected = np.logaddexp(0, x) - x * y
    for targets in (y, y.astype(bool), y.astype(float)):
        losses = functional.binary_cross_entropy_with_logits(constant(x), constant(targets), "none")
        assert str(losses.dtype) == "f64"
        np.testing.assert_allclose(losses.eval(), expected, rtol=1e-14)
    far = functional.binary_cross_entropy_with_logits(constant([1e4, -1e4]), constant([0.0, 0.0]), "none")
    np.testing.assert_array_equal(far.eval(), [1e4, 0])


def test_losses_of_distances_and_of_logarithms_of_probabilities() -> None:
    x, y = RNG.normal(size=6), RNG.normal(size=6)
    np.testing.assert_allclose(functional.l1_loss(constant(x), constant(y)).eval(), np.abs(x - y).mean())
    d = np.abs(x - y)
    for beta in (0.1, 1.0):
        expected = np.where(d < beta, d * d / (2 * beta), d - beta / 2)
        losses = functional.smooth_l1_loss(constant(x), constant(y), "none", beta)
        np.testing.assert_allclose(losses.eval(), expected, rtol=1e-14)
    logits, labels = constant(LOGITS), constant(LABELS)
    both = functional.nll_loss(functional.log_softmax(logits), labels), functional.cross_entropy(logits, labels)
    np.testing.assert_allclose(both[0].eval(), both[1].eval(), rtol=1e-14)


def test_activations() -> None:
    x = np.array([-np.inf, -800.0, -1.0, -0.0, 0.0, 2.0, 800.0, np.inf, np.nan])
    with np.errstate(over="ignore"):
        gated = x[1:-2] / (1 + np.exp(-x[1:-2]))
        below = np.expm1(x)
    agree(
        lambda x: [functional.silu(x[1:-2]), functional.leaky_relu(x, 0.5), functional.elu(x, 2.0)],
        [gated, np.where(x > 0, x, 0.5 * x), np.where(x > 0, x, 2 * below)],
        x, rtol=1e-14,
    )  # fmt: skip
    for function in (functional.silu, functional.leaky_relu, functional.elu):
        differentiable(function, RNG.normal(size=40))
        far = placeholder("far", (2,), "float64")
        (slope,) = graphc.grad(function(far).sum(), [far])
        assert np.isfinite(slope.eval({far: np.array([800.0, -800.0])})).all()


def test_losses_say_what_does_not_fit() -> None:
    x = placeholder("x", ("n", 4))
    with pytest.raises(ShapeError, match=r"x \(f32\[n,4\]\) needs labels of shape \[n\], not y \(i64\[n,1\]\)"):
        functional.cross_entropy(x, placeholder("y", ("n", 1), "int64"))
    with pytest.raises(DTypeError, match=r"labels must be integers or floats, not y \(bool\[n\]\)"):
        functional.cross_entropy(x, placeholder("y", ("n",), "bool"))
    with pytest.raises(DTypeError, match=r"logits must be floats with an axis of classes, not .* \(i64\[n,4\]\)"):
        functional.cross_entropy(x.astype("int64"), placeholder("y", ("n",), "int64"))
    with pytest.raises(ShapeError, match=r"_with_logits: the shapes of x \(f32\[n,4\]\) and y \(f32\[n\]\) differ"):
        functional.binary_cross_entropy_with_logits(x, placeholder("y", ("n",)))
    with pytest.raises(ShapeError) as info:
        functional.mse_loss(x, placeholder("y", ("n", 1)))
    assert "test_nn.py" in str(info.value) and "functional.mse_loss(x, placeholder" in str(info.value)
    assert "a loss does not broadcast" in str(info.value)
    with pytest.raises(DTypeError, match=r"nll_loss: labels must be integers: y is bool\[n\]"):
        functional.nll_loss(x, placeholder("y", ("n",), "bool"))
    with pytest.raises(DTypeError, match=r"labels must be integers: .*\n.*\n.*hint: \(...\).astype\('int64'\)"):
        functional.nll_loss(x, x[:, 0] * 2)
    with pytest.raises(ArgumentError, match="smooth_l1_loss: beta must be positive, not 0.*\n.*\n.*write l1_loss"):
        functional.smooth_l1_loss(x, x, beta=0)
    with pytest.raises(ShapeError, match="l1_loss: the shapes of"):
        functional.l1_loss(x, x[:, 0])
    with pytest.raises(ArgumentError, match='reduction is "mean", "sum" or "none", not \'avg\''):
        functional.mse_loss(x, x, reduction="avg")


def test_a_label_out_of_range_is_an_error() -> None:
    x, y = placeholder("x", ("n", 4)), placeholder("y", ("n",), "int64")
    loss = functional.cross_entropy(x, y)
    for wrong in (4, -5):
        with pytest.raises(IndexRangeError):
            loss.eval({x: LOGITS.astype("float32"), y: np.array([0, 1, wrong, 2, 3])})


def test_linear_starts_as_pytorch_does_and_repeats_with_its_seed() -> None:
    layer = Linear(100, 50, generator=3)
    assert layer.weight.value.shape == (100, 50) and layer.weight.value.dtype == np.float32
    assert layer.bias is not None
    for values in (layer.weight.value, layer.bias.value):
        assert 0.08 < np.abs(values).max() <= 0.1 and abs(values.mean()) < 0.03
    np.testing.assert_array_equal(Linear(100, 50, generator=3).weight.value, layer.weight.value)
    assert not np.array_equal(Linear(100, 50).weight.value, Linear(100, 50).weight.value)
    shared = np.random.default_rng(3)
    assert not np.array_equal(Linear(4, 4, generator=shared).weight.value, Linear(4, 4, generator=shared).weight.value)
    assert Linear(4, 4, dtype="float64").weight.value.dtype == np.float64
    with pytest.raises(ArgumentError, match="sizes must be positive, not 0 and 3"):
        Linear(0, 3)


def test_a_network_computes_what_its_layers_say() -> None:
    model = Sequential(Linear(3, 4, generator=1), ReLU(), Linear(4, 2, bias=False, generator=2))
    x = placeholder("x", ("n", 3))
    data = RNG.normal(size=(6, 3)).astype("float32")
    state = model.state_dict()
    hidden = np.maximum(data @ state["0.weight"] + state["0.bias"], 0)
    np.testing.assert_allclose(model(x).eval({x: data}), hidden @ state["2.weight"], rtol=1e-5)
    assert list(state) == ["0.weight", "0.bias", "2.weight"]
    assert [p.name for p in model.parameters()] == ["layers.0.weight", "layers.0.bias", "layers.2.weight"]
    assert len(model) == 3 and isinstance(model[1], ReLU)
    assert repr(model) == (
        "Sequential(\n  (0): Linear(in_features=3, out_features=4, bias=True)\n  (1): ReLU()\n"
        "  (2): Linear(in_features=4, out_features=2, bias=False)\n)"
    )


class Net(Module):
    """What a user writes: children, a declared parameter, a shared one."""

    gain: graphc.build.Parameter

    def __init__(self) -> None:
        super().__init__()
        self.body = Sequential(hidden=Linear(3, 3, generator=0), relu=ReLU())
        self.tied = self.body[0]
        self.register_parameter("gain", np.ones(3, "float32"))
        self.offset = parameter("offset", np.zeros(3, "float32"))

    def forward(self, x: graphc.build.Tensor) -> graphc.build.Tensor:
        return self.tied(self.body(x)) * self.gain + self.offset


def test_parameters_are_named_by_their_path_once() -> None:
    net = Net()
    names = ["gain", "offset", "body.hidden.weight", "body.hidden.bias"]
    assert list(net.state_dict()) == names
    assert [p.name for p in net.parameters()] == names
    assert dict(net.named_children()) == {"body": net.body, "tied": net.tied}
    assert net.gain is net.parameters()[0] and net.tied.weight is net.body[0].weight
    assert net(placeholder("x", ("n", 3))).shape[1] == 3
    net.body = ReLU()
    assert list(net.state_dict()) == ["gain", "offset", "tied.weight", "tied.bias"]
    net.gain = parameter("other", np.ones(2, "float32"))
    assert [p.name for p in net.parameters()][:2] == ["offset", "other"]
    net.tied = None
    assert len(net.parameters()) == 2 and net.tied is None


def test_module_messages() -> None:
    class Forgetful(Module):
        def __init__(self) -> None:
            self.layer = ReLU()

    with pytest.raises(ArgumentError, match=r"Forgetful.layer is set before super\(\).__init__\(\)"):
        Forgetful()
    with pytest.raises(AttributeError, match="ReLU has no attribute 'weight'"):
        _ = ReLU().weight
    with pytest.raises(ArgumentError, match="'a.b' cannot be an attribute"):
        ReLU().register_parameter("a.b", np.ones(1))
    with pytest.raises(ArgumentError, match=r"Module has no forward\(\)"):
        Module()(placeholder("x", ()))


def test_a_state_dict_is_a_copy_and_loads_into_another_network(tmp_path: Path) -> None:
    one, two = Net(), Net()
    one.body[0].weight.value = RNG.normal(size=(3, 3)).astype("float32")
    state = one.state_dict()
    memory = two.gain.value.ctypes.data
    save(state, tmp_path / "net.npz")
    two.load_state_dict(load(tmp_path / "net.npz"))
    for key, array in two.state_dict().items():
        assert array.tobytes() == state[key].tobytes()
    assert two.gain.value.ctypes.data == memory
    state["gain"][...] = 5
    assert one.gain.value[0] == 1


def test_loading_names_what_does_not_fit_and_changes_nothing() -> None:
    model = Sequential(out=Linear(3, 2, generator=0))
    before = model.state_dict()
    good = {"out.weight": np.ones((3, 2), "float32"), "out.bias": np.ones(2, "float32")}
    with pytest.raises(ArgumentError, match="the keys do not fit: missing out.bias; unexpected out.b"):
        model.load_state_dict({"out.weight": good["out.weight"], "out.b": good["out.bias"]})
    with pytest.raises(ShapeError, match=r"out.bias is float32\[2\], the array has shape \[3\]"):
        model.load_state_dict(good | {"out.bias": np.ones(3, "float32")})
    with pytest.raises(ShapeError, match=r"PyTorch as \[out, in\]: pass the transpose"):
        model.load_state_dict(good | {"out.weight": np.ones((2, 3), "float32")})
    with pytest.raises(DTypeError, match=r"out.bias is float32, the array is float64: that narrows"):
        model.load_state_dict(good | {"out.bias": np.ones(2)})
    assert all(np.array_equal(before[key], array) for key, array in model.state_dict().items())


def test_files_hold_any_name_and_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    state = {"file": np.arange(3), "a.b": np.float64(2), "empty": np.zeros((0, 3), "float32")}
    save(state, path)
    save(path, state)
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]
    loaded = load(path)
    assert list(loaded) == list(state) and all(np.array_equal(loaded[key], state[key]) for key in state)
    with pytest.raises(ValueError, match="Object arrays"):
        save({"bad": np.array([object()])}, path)
    with pytest.raises(ArgumentError, match="nn.save writes a mapping from names to arrays, not a ndarray"):
        save(path, np.ones(2))  # type: ignore[arg-type]
    assert list(load(path)) == list(state), "a failed save leaves the old file"
    np.savez(path, bad=np.array([{}], dtype=object))
    with pytest.raises(ArgumentError, match="Object arrays cannot be loaded"):
        load(path)
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ArgumentError, match="not an .npz file of plain arrays"):
        load(path)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ArgumentError, match="not an .npz file of plain arrays"):
        load(tmp_path / "one.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"nothing")
    with pytest.raises(ArgumentError, match="not an .npz file of plain arrays"):
        load(path)


def test_sequential_takes_functions_and_says_what_it_does_not_take() -> None:
    x = placeholder("x", ("n", 3))
    layer = Linear(3, 2, generator=0)
    model = Sequential(layer, functional.gelu, last=lambda y: y * 2)
    value = RNG.standard_normal((4, 3)).astype("float32")
    expected = functional.gelu(layer(x)).eval({x: value}) * 2
    np.testing.assert_array_equal(model(x).eval({x: value}), expected)
    assert len(model) == 3 and "Function(gelu)" in repr(model) and list(model.state_dict()) == ["0.weight", "0.bias"]
    with pytest.raises(ArgumentError, match=r"argument '1' is neither a Module nor a function, but a int"):
        Sequential(layer, 3)
    with pytest.raises(ArgumentError, match=r"(?s)argument '0' is neither .* but a list.*Sequential\(\*modules\)"):
        Sequential([layer])


def test_a_list_of_layers_is_part_of_its_module() -> None:
    class Tower(Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [Linear(4, 4, generator=1), Linear(4, 2, generator=2)]

        def forward(self, x: graphc.Tensor) -> graphc.Tensor:
            for layer in self.layers:
                x = functional.relu(layer(x))
            return x

    tower = Tower()
    assert list(tower.state_dict()) == [f"layers.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")]
    assert tower(placeholder("x", ("n", 4))).shape[1] == 2 and len(tower.layers) == 2
    assert not tower.eval().layers[1].training
    with pytest.raises(ArgumentError, match="Tower.heads is a dict of modules, which would not be found"):
        tower.heads = {"a": ReLU()}
    with pytest.raises(ArgumentError, match="ModuleList: 3 at position 2 is no Module"):
        tower.layers = [ReLU(), ReLU(), 3]
