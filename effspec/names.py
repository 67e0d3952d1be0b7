"""The names that every spec sees without stating them, and those that it may not use."""

from __future__ import annotations

import re
from functools import lru_cache

from effspec.ops import OPS
from effspec.params import INITIALIZERS
from effspec.syntax import nodes
from effspec.values import FUNCTIONS

OPERATORS = frozenset(name for name, op in OPS.items() if op.callable)
PREDECLARED: frozenset[str] = OPERATORS | FUNCTIONS.keys() | INITIALIZERS.keys() | {"each"}
RESERVED = frozenset({"it", "input", "default", "at"})

AT = ("i", "n", "block", "blocks")
"""What is read of `at`; the first two also in a block."""

HOOKS = ("repeats", "channels", "pixels", "group_width")
"""What every model may call, whatever its rule: a hook of these that a rule lacks changes nothing."""

TENSOR_ATTRIBUTES = ("shape", "rank", "channels", "height", "width")

PREPARATION = ("mean", "std", "range", "interpolation", "crop", "fit", "train_size")
"""The arguments of `prepare`."""

EXPECT_NUMBERS = ("params", "training_params", "macs", "acts", "depth")
EXPECT_CALLS = ("count", "equals")

# What a torch module has already, so that no child can be called so: every public attribute of torch.nn.Module
# (`dir(torch.nn.Module())` of torch 2.14), and what its methods call the module itself.
TORCH_ATTRIBUTES = frozenset(
    re.findall(
        r"\w+",
        """
        T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches
        eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict
        modules mtia named_buffers named_children named_modules named_parameters parameters register_backward_hook
        register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
        register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
        register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
        set_extra_state set_submodule share_memory state_dict to to_empty train training type xpu zero_grad self
        """,
    )
)


@lru_cache(maxsize=1024)
def snake_case(name: str) -> str:
    """`ConvNorm` -> `conv_norm`: how an unlabelled block is called in paths."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def written_name(node: nodes.Expr) -> str:
    """How a line or step without a label is called in paths: its layer's name as written, a block's in snake_case."""
    while isinstance(node, nodes.Call) or (isinstance(node, nodes.Attribute) and node.name.id == "taps"):
        node = node.function if isinstance(node, nodes.Call) else node.value
    name = node.name.id if isinstance(node, nodes.Attribute) else node.id if isinstance(node, nodes.Name) else "layer"
    return snake_case(name) if name[:1].isupper() else name
