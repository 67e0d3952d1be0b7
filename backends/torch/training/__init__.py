"""A training script, as it is given away: its files stand here as they will stand beside a compiled `model.py`.

They import each other by their plain names, and nothing of effspec: whoever has the folder owns the code.  `point.py`
and `README.md`, which tell one model from another, are templates.
"""

from importlib.resources import files

import jinja2

_HERE = files(__name__)
_DIGEST = "\n\nPart of a training script by effspec; effspec digest 0000000000000000.\n"


def code(name: str) -> str:
    """A module of the script, with a place for its digest."""
    text = (_HERE / f"{name}.py").read_text(encoding="utf-8")
    head, _, rest = text.partition('"""\n')
    return f'{head.rstrip()}{_DIGEST}"""\n{rest}'


def render(name: str, **values: object) -> str:
    """A file that depends on the model, with a place for its digest."""
    text = (_HERE / f"{name}.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(text).render(**values)
