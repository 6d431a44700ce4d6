# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the tests of tools/evidence.py say: a table of the rows, and the claims with intervals.

``plan`` is configs/evidence/rows.yml. ``out`` holds TABLE/ROW/SEED/predictions.json.
"""

import os
import platform
import time
from functools import cached_property
from pathlib import Path

import mmaction
import mmengine
import numpy as np
import style
import torch
from compare_tests import read_test
from statistics_of import paired_bootstrap

import s4d_mm

VERDICTS = dict(stands='blue', refuted='orange', open='green')  # the first colours of the style
MODALITIES = ('video', 'image')


def hits_of(path: str, classes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """By modality whether a sample was right, in the order of the samples' names."""
    found = read_test(path, classes)
    return {name: own['hits'][np.argsort(list(own['labels']))] for name, own in found.items()}


class Results:
    """The hits of all rows, their scores and their differences."""

    def __init__(self, out: str, plan: dict, classes: dict[str, tuple]) -> None:
        self.plan = plan
        self.hits: dict[tuple, dict[str, dict[str, np.ndarray]]] = {}  # by row and seed
        for path in sorted(Path(out).glob('*/*/*/predictions.json')):
            table, row, seed = path.parts[-4:-1]
            self.hits.setdefault((table, row), {})[seed] = hits_of(str(path), classes)

    def runs(self, table: str, row: str, modality: str) -> dict[str, np.ndarray]:
        """Hits by seed; none of a classifier that was not trained."""
        other = dict(video='images_only', image='clips_only')[modality]
        if other in self.plan['tables'][table]['rows'][row].get('use', ()):
            return {}
        return {seed: hits[modality] for seed, hits in self.hits.get((table, row), {}).items()}

    def difference(self, table: str, row: str, other: str, modality: str) -> tuple | None:
        """Row minus other row, and its 95 % interval, over the seeds that both have."""
        a, b = (self.runs(table, name, modality) for name in (other, row))
        seeds = sorted({*a} & {*b})
        if not seeds:
            return None
        return paired_bootstrap(*(np.stack([hits[s] for s in seeds]) for hits in (a, b)))

    def table(self, name: str) -> str:
        settings, lines = self.plan['tables'][name], []
        lines += [f'### {settings["title"]}', '', settings['says'], '']
        lines += [
            '| row | WAR, clips | WAR, images | against | clips | images |',
            '|' + ' --- |' * 6,
        ]
        for row, own in settings['rows'].items():
            if not own.get('tested', True):
                continue
            cells = [f'`{row}`: {own["says"]}']
            for modality in MODALITIES:
                runs = [100 * hits.mean() for hits in self.runs(name, row, modality).values()]
                spread = f' ({min(runs):.1f} to {max(runs):.1f})' if len(runs) > 1 else ' (1 seed)'
                nothing = '-' if (name, row) in self.hits else 'not run'
                cells.append(f'{np.mean(runs):.1f}{spread}' if runs else nothing)
            against = own.get('against')
            cells.append(f'`{against}`' if against else '-')
            for modality in MODALITIES:
                cells.append(shown(against and self.difference(name, row, against, modality)))
            lines.append(f'| {" | ".join(cells)} |')
        return '\n'.join(lines) + '\n'

    @cached_property
    def claimed(self) -> list[tuple[dict, tuple | None]]:
        """Each claim and its difference, which takes a bootstrap."""
        claims = self.plan['claims']
        return [(c, self.difference(c['table'], *c['rows'], c['by'])) for c in claims]

    def claims(self) -> str:
        lines = ['| claim | data | difference | |', '|' + ' --- |' * 4]
        for claim, difference in self.claimed:
            where = f'{claim["table"]}: {" - ".join(f"`{row}`" for row in claim["rows"])}'
            verdict = judge(difference, claim['side'])
            lines.append(f'| {claim["says"]} | {where} | {shown(difference)} | {verdict} |')
        return '\n'.join(lines) + '\n'

    def draw(self, path: str) -> None:
        """Each claim's difference and interval."""
        found = [(claim, difference) for claim, difference in self.claimed if difference][::-1]
        fig, axes = style.panels(1, 1, 9, 1 + 0.3 * len(found))
        for y, (claim, (middle, low, high)) in enumerate(found):
            verdict = judge((middle, low, high), claim['side'])
            color = dict(zip(VERDICTS, style.COLOURS))[verdict]
            axes[0, 0].plot((low, high), (y, y), color=color, lw=2)
            axes[0, 0].plot(middle, y, 'o', color=color)
        names = [f'{c["says"]}; {c["table"].replace("_", " ")}' for c, _ in found]
        axes[0, 0].set_yticks(range(len(found)), names, fontsize=7)
        axes[0, 0].axvline(0, color='black', lw=0.8)
        said = ', '.join(f'{verdict}: {name}' for verdict, name in VERDICTS.items())
        axes[0, 0].set(title='95 % intervals', xlabel=f'WAR, points ({said})')
        rows = [
            dict(claim=n, difference=d[0], low=d[1], high=d[2]) for n, (_, d) in zip(names, found)
        ]
        if rows:
            style.save(fig, rows, path)


def judge(difference: tuple | None, side: str) -> str:
    """What an interval says of a claim that the difference is above or below 0."""
    if difference is None:
        return 'not run'
    _, low, high = difference if side == 'above' else (0, -difference[2], -difference[1])
    return 'stands' if low > 0 else 'refuted' if high < 0 else 'open'


def shown(difference: tuple | None) -> str:
    return '{:+.1f} ({:+.1f} to {:+.1f})'.format(*difference) if difference else '-'


def report(results: Results, command: str, seconds: float) -> str:
    """The tables as Markdown; ``seconds`` of one core."""
    modules = (s4d_mm, mmengine, mmaction, torch)
    versions = ', '.join(f'{m.__name__} {m.__version__}' for m in modules)
    machine = f'{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}'
    parts = [
        f'Made by `{command}` on {time.strftime("%Y-%m-%d")}, {seconds / 60:.0f} minutes of one '
        f'core, on {machine}, {versions}. A WAR is the mean of the seeds (smallest to largest), in '
        'percent. A difference is that to the row in `against`, in points, with its 95 % interval '
        'by a paired bootstrap over test samples and seeds.\n',
        *map(results.table, results.plan['tables']),
        '### The claims\n',
        results.claims(),
    ]
    return '\n'.join(parts)
