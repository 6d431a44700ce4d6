# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Write ``docs/model_zoo.md`` from ``model-index.yml``: ``python docs/make_model_zoo.py``."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs' / 'model_zoo.md'
HEAD = """# Model zoo

<!-- Written by docs/make_model_zoo.py from model-index.yml: change that file, not this page. -->

All models that have a name. `s4d models` lists them, and `--model` takes a name in place of a
config. *WAR* is the weighted average recall, which is the accuracy. *UAR* is the unweighted average
recall, the mean of the recalls of the classes.

**No figure in this table was measured with this code.** The last column says whose figures they
are. The weights are theirs, too: a file, or a name with which `s4d predict --model` fetches them. A
dash: none are published. More: [weights](weights.md). Those of `rendered_people` are our own and
in the package: `s4d predict` takes it where no model is named.
"""


def models() -> list[tuple[str, dict]]:
    """Collection and entry of each model, in the order of the index."""
    found = []
    for name in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        found += [
            (model['In Collection'], model)
            for model in yaml.safe_load((ROOT / name).read_text())['Models']
        ]
    return found


def row(model: dict) -> str:
    """A model as a line of the table."""
    figures = [
        f'{result["Dataset"]}: ' + ', '.join(f'{k} {v}' for k, v in result['Metrics'].items())
        for result in model['Results']
    ]
    config, weights, alias = model['Config'], model.get('Weights'), model.get('Alias')
    where = f'[file]({weights})' if weights else f'[`{alias}`](s2d.md)' if alias else '-'
    if weights and '://' not in weights:
        where = 'in the package'
    cells = (
        f'[`{model["Name"]}`](../{config})',
        ', '.join(model['Metadata']['Training Data']),
        str(model['Metadata'].get('Epochs', '-')),
        where,
        '; '.join(figures) or '-',
        model['Metadata'].get('Source of Results', '-'),
    )
    return f'| {" | ".join(cells)} |'


def page() -> str:
    """The page."""
    text, last = HEAD, None
    for collection, model in models():
        if collection != last:
            text += f'\n## {collection}\n\n| name and config | trained on | epochs | weights |'
            text += ' figures | whose figures |\n| --- | --- | --- | --- | --- | --- |\n'
            last = collection
        text += row(model) + '\n'
    return text


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
