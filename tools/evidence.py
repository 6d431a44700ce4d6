# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Train and test the rows of configs/evidence/rows.yml, and write what they say of S4D's claims.

    python tools/evidence.py --out DIR            the core, 50 minutes on 2 cores
    python tools/evidence.py --out DIR --all      all rows, 90 minutes
    python tools/evidence.py --out DIR --smoke    all of the core for a few steps, 4 minutes

Each row is trained with three seeds, a process for each core. DIR/TABLE/ROW holds its config, and
for each seed log, checkpoint and predictions; DIR/evidence.md the tables. Repeat the command after
an interruption: what is finished is kept. The rendered people are read from data/rendered_people,
or $RENDERED_DIR; tools/data/make_benchmark.py makes them.
"""

import argparse
import os
import os.path as osp
import platform
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from mmengine.config import Config

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / 'configs' / 'evidence'
INSTRUMENTS = str(ROOT / 'tools' / 'analysis_tools')
sys.path[:0] = [str(ROOT), INSTRUMENTS]
import style  # noqa: E402
from statistics_of import paired_bootstrap  # noqa: E402

from s4d_mm.datasets.config import class_names_of_test  # noqa: E402
from s4d_mm.evaluation.predictions import read_predictions  # noqa: E402
from s4d_mm.files.atomic_write import atomic_path, atomic_write  # noqa: E402
from s4d_mm.media import read_video, write_image  # noqa: E402

SEEDS = (0, 1, 2)
SMOKE = dict(seeds=(0,), drawn=(560, 280), trained=64, tested=140)  # images and clips
BEGIN, END = '<!-- evidence: begin -->\n', '<!-- evidence: end -->'
STARTING = 20  # seconds of a process before its first step, twice for each row


class Job(NamedTuple):
    """A training of a row with a seed, and its test."""

    table: str
    row: str
    seed: int

    @property
    def name(self) -> str:
        return f'{self.table}/{self.row}/{self.seed}'


# ------------------------------------------------------------------------ data
def make_data(out: str, tables: list[str], smoke: bool) -> list[str]:
    """Make the frames that the tables read; returns the tables whose data are there."""
    drawn, rendered = osp.join(out, 'drawn_faces'), os.environ['RENDERED_DIR']
    sizes = dict(zip(('--images', '--clips'), map(str, SMOKE['drawn']))) if smoke else {}
    command = [sys.executable, 'tools/data/make_quickstart.py', drawn + '/data']
    subprocess.run([*command, *sum(sizes.items(), ())], cwd=ROOT, check=True)
    read_drawn_faces(drawn)
    if 'rendered_people' in tables and not osp.isfile(osp.join(rendered, 'people.npz')):
        command = f'python tools/data/make_benchmark.py {rendered}'
        print(f'rendered_people is left out: there are none in {rendered}. To make them: {command}')
        tables = [name for name in tables if name != 'rendered_people']
    if 'rendered_people' in tables:
        write_frames(rendered + '/clips', osp.join(out, 'rendered_people', 'frames'))
    return tables


def write_frames(clips: str, folder: str) -> None:
    """Write each clip as a folder of frames, which are read in a tenth of the time."""

    def write(clip: Path) -> None:
        with atomic_path(osp.join(folder, clip.stem)) as part:
            os.makedirs(part)
            for i, frame in enumerate(read_video(str(clip))):
                write_image(osp.join(part, f'{i:05d}.jpg'), frame)

    todo = [c for c in sorted(Path(clips).glob('*.mp4')) if not osp.isdir(osp.join(folder, c.stem))]
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, todo))


def read_drawn_faces(drawn: str) -> None:
    """Write the clips as frames, and list the last 8 of each training clip as AffectNet does."""
    for folder in ('images', 'annotations'):
        if not osp.exists(osp.join(drawn, folder)):
            os.symlink(osp.join('data', folder), osp.join(drawn, folder))
    write_frames(drawn + '/data/clips', drawn + '/frames')
    cfg = Config.fromfile(CONFIGS / 'drawn_faces.py')
    classes = class_names_of_test(cfg)
    text = Path(drawn, 'annotations', 'dfew_train.csv').read_text()
    lines = []
    for line in text.splitlines()[1 : cfg.train_dataloader.dataset.video.indices + 1]:
        name, label = line.split(',')
        label = classes['image'].index(classes['video'][int(label)])
        frames = sorted(os.listdir(osp.join(drawn, 'frames', name)))
        lines += [f'{name}/{frame} {label}\n' for frame in frames[-8:]]
    atomic_write(osp.join(drawn, 'annotations', 'frames_train.txt'), ''.join(lines))


# ------------------------------------------------------------------------ jobs
def config_of(plan: dict, job: Job, smoke: bool) -> Config:
    """The config of a row; its seed is an argument of the training."""
    row = plan['tables'][job.table]['rows'][job.row]
    cfg = Config.fromfile(CONFIGS / row.get('config', plan['tables'][job.table]['config']))
    for name in row.get('use', ()):
        cfg.merge_from_dict(plan['changes'][name])
    if smoke:
        cfg.train_cfg.max_epochs = 1
        for part in filter(None, map(cfg.train_dataloader.dataset.get, ('video', 'image'))):
            part.indices = SMOKE['trained']
        if row.get('tested', True):
            cfg.test_dataloader.dataset.image.indices = SMOKE['tested']
    return cfg


def run(job: Job, plan: dict, out: str, smoke: bool) -> None:
    """Train and test a row, or what is left of that."""
    row, folder = plan['tables'][job.table]['rows'][job.row], osp.join(out, job.name)
    predictions = osp.join(folder, 'predictions.json')
    path = osp.join(osp.dirname(folder), f'{job.row}.py')  # mmengine writes to the folder of a run
    text = config_of(plan, job, smoke).pretty_text
    if osp.isfile(path) and Path(path).read_text() != text:
        said = f'{path} is of other settings: delete {osp.dirname(path)}, or name another --out'
        raise ValueError(said)
    atomic_write(path, text)
    os.makedirs(folder, exist_ok=True)
    source = row.get('weights') or row.get('from')
    start = source and last_checkpoint(osp.join(out, job.table, source, str(job.seed)))
    weights = start
    if 'weights' not in row:
        if not osp.isfile(osp.join(folder, 'trained')):
            arguments = ['train.py', path, '--work-dir', folder, '--seed', str(job.seed)]
            if osp.isfile(osp.join(folder, 'last_checkpoint')):
                arguments += ['--resume']
            elif start:
                arguments += ['--cfg-options', f'load_from={start}']
            call(arguments, osp.join(folder, 'train.log'))
            atomic_write(osp.join(folder, 'trained'), '')
        weights = last_checkpoint(folder)
    if row.get('tested', True) and not osp.isfile(predictions):
        arguments = ['test.py', path, weights, '--work-dir', osp.join(folder, 'test')]
        call([*arguments, '--dump', predictions[:-4] + 'pkl'], osp.join(folder, 'test.log'))


def call(arguments: list[str], log: str) -> None:
    env = dict(os.environ, OMP_NUM_THREADS='1')
    env['PYTHONPATH'] = os.pathsep.join(filter(None, (INSTRUMENTS, env.get('PYTHONPATH'))))
    command = [sys.executable, str(ROOT / 'tools' / arguments[0]), *arguments[1:]]
    with open(log, 'a', encoding='utf-8') as f:
        code = subprocess.run(command, cwd=ROOT, env=env, stdout=f, stderr=f).returncode
    if code:
        raise RuntimeError(f'{arguments[0]} ended with {code}: see {log}')


def last_checkpoint(folder: str) -> str:
    return Path(folder, 'last_checkpoint').read_text().strip()


def run_all(jobs: list[Job], plan: dict, out: str, smoke: bool) -> dict[Job, str]:
    """Run the jobs, one for each core; what went wrong, by job."""
    futures: dict[Job, Future] = {}
    start, errors = time.time(), {}

    def work(job: Job) -> None:
        row = plan['tables'][job.table]['rows'][job.row]
        source = row.get('weights') or row.get('from')
        if source:  # begun before: the row stands above
            futures[job._replace(row=source)].result()
        run(job, plan, out, smoke)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for job in jobs:
            futures[job] = pool.submit(work, job)
        for number, (job, future) in enumerate(futures.items(), 1):
            try:
                future.result()
            except (OSError, RuntimeError, ValueError) as e:
                errors[job] = str(e)
            said = errors.get(job, 'done')
            print(
                f'{(time.time() - start) / 60:5.1f} min {number}/{len(jobs)} {job.name}: {said}',
                flush=True,
            )
    return errors


# --------------------------------------------------------------------- results
def read_hits(out: str, table: str, row: str, seeds: tuple) -> dict[str, dict[int, np.ndarray]]:
    """By modality and seed 1 where a sample was right, in the order of the samples' names."""
    found: dict[str, dict[int, np.ndarray]] = {'video': {}, 'image': {}}
    for seed in seeds:
        path = osp.join(out, Job(table, row, seed).name, 'predictions.json')
        if not osp.isfile(path):
            continue
        samples = sorted(read_predictions(path), key=lambda s: s['sample_id'])
        for modality in found:
            own = [s for s in samples if s['input_type'] == modality]
            hits = [s['pred_label'] == s['gt_label'] and not s.get('unreadable') for s in own]
            found[modality][seed] = np.array(hits, float)
    return found


class Results:
    """The hits of all rows, their scores and their differences."""

    def __init__(self, out: str, plan: dict, seeds: tuple) -> None:
        self.plan = plan
        self.rows = {
            (table, row): read_hits(out, table, row, seeds)
            for table, settings in plan['tables'].items()
            for row in settings['rows']
        }

    def runs(self, table: str, row: str, modality: str) -> dict[int, np.ndarray]:
        """Hits by seed; none of a classifier that was not trained."""
        other = dict(video='images_only', image='clips_only')[modality]
        untrained = other in self.plan['tables'][table]['rows'][row].get('use', ())
        return {} if untrained else self.rows[table, row][modality]

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
            for modality in ('video', 'image'):
                runs = [100 * hits.mean() for hits in self.runs(name, row, modality).values()]
                spread = f' ({min(runs):.1f} to {max(runs):.1f})' if len(runs) > 1 else ''
                done = any(self.rows[name, row].values())
                cells.append(f'{np.mean(runs):.1f}{spread}' if runs else '-' if done else 'not run')
            against = own.get('against')
            cells.append(f'`{against}`' if against else '-')
            for modality in ('video', 'image'):
                cells.append(shown(against and self.difference(name, row, against, modality)))
            lines.append(f'| {" | ".join(cells)} |')
        return '\n'.join(lines) + '\n'

    def claims(self) -> str:
        lines = ['| claim | data | difference | |', '|' + ' --- |' * 4]
        for claim in self.plan['claims']:
            difference = self.difference(claim['table'], *claim['rows'], claim['by'])
            where = f'{claim["table"]}: {" - ".join(f"`{row}`" for row in claim["rows"])}'
            verdict = judge(difference, claim['side'])
            lines.append(f'| {claim["says"]} | {where} | {shown(difference)} | {verdict} |')
        return '\n'.join(lines) + '\n'

    def draw(self, path: str) -> None:
        """Each claim's difference and interval."""
        found = [(c, self.difference(c['table'], *c['rows'], c['by'])) for c in self.plan['claims']]
        found = [(c, d) for c, d in found if d][::-1]
        fig, axes = style.panels(1, 1, 9, 1 + 0.3 * len(found))
        for y, (claim, (middle, low, high)) in enumerate(found):
            verdict = judge((middle, low, high), claim['side'])
            color = dict(zip(VERDICTS, style.COLOURS))[verdict]
            axes[0, 0].plot((low, high), (y, y), color=color, lw=2)
            axes[0, 0].plot(middle, y, 'o', color=color)
        names = [f'{c["says"]}; {c["table"].replace("_", " ")}' for c, _ in found]
        axes[0, 0].set_yticks(range(len(found)), names, fontsize=7)
        axes[0, 0].axvline(0, color='black', lw=0.8)
        said = ', '.join(f'{v}: {n}' for v, n in zip(VERDICTS, ('blue', 'orange', 'green')))
        axes[0, 0].set(title=f'Differences with 95 % intervals ({said})', xlabel='WAR, points')
        rows = [
            dict(claim=n, difference=d[0], low=d[1], high=d[2]) for n, (_, d) in zip(names, found)
        ]
        if rows:
            style.save(fig, rows, path)


VERDICTS = ('stands', 'refuted', 'open')


def judge(difference: tuple | None, side: str) -> str:
    """What an interval says of a claim that the difference is above or below 0."""
    if difference is None:
        return 'not run'
    _, low, high = difference if side == 'above' else (0, -difference[2], -difference[1])
    return 'stands' if low > 0 else 'refuted' if high < 0 else 'open'


def shown(difference: tuple | None) -> str:
    return '{:+.1f} ({:+.1f} to {:+.1f})'.format(*difference) if difference else '-'


def report(results: Results, plan: dict, command: str, minutes: float) -> str:
    """The tables as Markdown."""
    import mmaction
    import mmengine
    import torch

    import s4d_mm

    modules = (s4d_mm, mmengine, mmaction, torch)
    versions = ', '.join(f'{m.__name__} {m.__version__}' for m in modules)
    machine = f'{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}'
    parts = [
        f'Made by `{command}` on {time.strftime("%Y-%m-%d")}, {minutes:.0f} minutes on {machine}, '
        f'{versions}. A WAR is the mean of three seeds (smallest to largest), in percent; a '
        'difference has its 95 % interval by a paired bootstrap over test samples and seeds.\n',
        *(results.table(name) for name in plan['tables']),
        '### The claims\n\nA claim stands if the whole interval is on its side of 0, is refuted if '
        'it is on the other side, and is open else.\n',
        results.claims(),
    ]
    return '\n'.join(parts)


def forecast(jobs: list[Job], plan: dict) -> float:
    """Minutes on this machine's cores, by the seconds of the rows."""
    rows = (plan['tables'][job.table]['rows'][job.row] for job in jobs)
    return sum(row['seconds'] + STARTING for row in rows) / os.cpu_count() / 60


def main(argv: list[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    add = parser.add_argument
    add('--out', required=True, help='folder to write to')
    add('--all', action='store_true', help='all rows, not the core alone')
    add('--smoke', action='store_true', help='a few steps of one seed on few data: does it run?')
    add('--page', help='page of which the part between the evidence marks is written, too')
    args = parser.parse_args(argv)
    begin, out = time.time(), osp.abspath(args.out)
    os.environ['EVIDENCE_DIR'] = out
    os.environ['RENDERED_DIR'] = osp.abspath(os.environ.get('RENDERED_DIR', 'data/rendered_people'))
    plan = yaml.safe_load((CONFIGS / 'rows.yml').read_text(encoding='utf-8'))
    if args.page and (missing := [m for m in (BEGIN, END) if m not in Path(args.page).read_text()]):
        parser.error(f'--page {args.page} has no line {missing[0].strip()}')
    tables = make_data(out, list(plan['tables']), args.smoke)
    jobs = [
        Job(table, row, seed)
        for seed in (SMOKE['seeds'] if args.smoke else SEEDS)
        for table in tables
        for row, own in plan['tables'][table]['rows'].items()
        if args.all or own.get('core')
    ]
    jobs.sort(key=lambda job: not plan['tables'][job.table]['rows'][job.row].get('core'))
    for job in jobs:
        config_of(plan, job, args.smoke)  # mistakes end here
    if not args.smoke:
        print(f'{len(jobs)} rows: {forecast(jobs, plan):.0f} minutes on {os.cpu_count()} cores')
    errors = run_all(jobs, plan, out, args.smoke)
    results = Results(out, plan, SEEDS)
    command = ' '.join(['python tools/evidence.py', *(argv or sys.argv[1:])])
    text = report(results, plan, command, (time.time() - begin) / 60)
    atomic_write(osp.join(out, 'evidence.md'), text)
    results.draw(osp.join(out, 'claims.png'))
    if args.page:
        page = Path(args.page).read_text(encoding='utf-8')
        head, tail = page.split(BEGIN)[0], page.split(END)[1]
        atomic_write(args.page, f'{head}{BEGIN}\n{text}\n{END}{tail}')
    print(text)
    return 1 if errors else 0


if __name__ == '__main__':
    sys.exit(main())
