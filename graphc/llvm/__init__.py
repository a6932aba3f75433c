"""Loop IR to LLVM IR text. Enter at `graphc.llvm.emit.emit`; the only folder that writes LLVM IR.

`values` and `builder` are the text of instructions, `arithmetic` what each op becomes, `memory` loads and stores,
`emit` statements and the function around them. To add an op of the loop IR, add a method to `Arithmetic`.
"""
