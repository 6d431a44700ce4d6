# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Train and test the rows of configs/evidence/rows.yml, and write what they say of S4D's claims.

    python tools/evidence.py --out DIR            the core, 60 minutes on 2 cores
    python tools/evidence.py --out DIR --all      all rows, 100 minutes
    python tools/evidence.py --out DIR --smoke    all of the core for a few steps, 4 minutes

Each row is trained with three seeds, a process for each core. DIR/TABLE/ROW holds its config, and
for each seed log, checkpoint and predictions; DIR/evidence.md the tables. Repeat the command after
an interruption: what is finished is kept. The rendered people are read from data/rendered_people,
or $RENDERED_DIR; tools/data/make_benchmark.py makes them.
"""

import argparse
import os
import os.path as osp
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import yaml
from mmengine.config import Config

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / 'configs' / 'evidence'
INSTRUMENTS = str(ROOT / 'tools' / 'analysis_tools')
sys.path[:0] = [str(ROOT), INSTRUMENTS]
from evidence_report import Results, report  # noqa: E402

from s4d_mm.datasets.config import class_names_of_test  # noqa: E402
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
def row_of(plan: dict, job: Job) -> dict:
    return plan['tables'][job.table]['rows'][job.row]


def source_of(row: dict) -> str | None:
    """The row whose weights this one begins with or tests."""
    return row.get('weights') or row.get('from')


def config_of(plan: dict, job: Job, smoke: bool) -> Config:
    """The config of a row; its seed is an argument of the training."""
    row = row_of(plan, job)
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


def config_path(job: Job, out: str) -> str:
    """Beside the folders of the seeds, into which mmengine writes configs of its own."""
    return osp.join(out, job.table, job.row, f'{job.row}.py')


def write_configs(jobs: list[Job], plan: dict, out: str, smoke: bool) -> None:
    """Write the config of each row; where there is one, it must be the same."""
    for job in {(job.table, job.row): job for job in jobs}.values():
        path, text = config_path(job, out), config_of(plan, job, smoke).pretty_text
        if osp.isfile(path) and Path(path).read_text() != text:
            said = f'{path} is of other settings: delete {osp.dirname(path)}, or name another --out'
            raise ValueError(said)
        atomic_write(path, text)


def run(job: Job, plan: dict, out: str) -> None:
    """Train and test a row, or what is left of that."""
    row, folder = row_of(plan, job), osp.join(out, job.name)
    path, predictions = config_path(job, out), osp.join(folder, 'predictions.json')
    os.makedirs(folder, exist_ok=True)
    source = source_of(row)
    start = source and last_checkpoint(osp.join(out, job.table, source, str(job.seed)))
    weights = start
    if 'weights' not in row:
        if not osp.isfile(osp.join(folder, 'trained')):
            arguments = ['train.py', path, '--work-dir', folder, '--seed', str(job.seed)]
            if osp.isfile(osp.join(folder, 'last_checkpoint')):
                arguments += ['--resume']
            elif start:
                arguments += ['--cfg-options', f'load_from={start}']
            begin = time.time()
            call(arguments, osp.join(folder, 'train.log'))
            atomic_write(osp.join(folder, 'trained'), f'{time.time() - begin:.0f} seconds\n')
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


def run_all(jobs: list[Job], plan: dict, out: str) -> dict[Job, str]:
    """Run the jobs, one for each core; what went wrong, by job."""
    futures: dict[Job, Future] = {}
    start, errors = time.time(), {}

    def work(job: Job) -> None:
        source = source_of(row_of(plan, job))
        if source:  # begun before: the row stands above
            futures[job._replace(row=source)].result()
        run(job, plan, out)

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for job in jobs:
            futures[job] = pool.submit(work, job)
        for number, (job, future) in enumerate(futures.items(), 1):
            try:
                future.result()
            except (OSError, RuntimeError) as e:
                errors[job] = str(e)
            minutes, said = (time.time() - start) / 60, errors.get(job, 'done')
            print(f'{minutes:5.1f} min {number}/{len(jobs)} {job.name}: {said}', flush=True)
    finally:  # also where it was interrupted
        pool.shutdown(cancel_futures=True)
    return errors


def forecast(jobs: list[Job], plan: dict) -> float:
    """Minutes on this machine's cores, by the seconds of the rows."""
    rows = (row_of(plan, job) for job in jobs)
    return sum(row['seconds'] + STARTING for row in rows) / os.cpu_count() / 60


def main(argv: list[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    add = parser.add_argument
    add('--out', required=True, help='folder to write to')
    add('--all', action='store_true', help='all rows, not the core alone')
    add('--smoke', action='store_true', help='a few steps of one seed on few data: does it run?')
    add(
        '--page',
        help='page with marks: the tables go between them, the picture into its folder pictures',
    )
    args = parser.parse_args(argv)
    out = osp.abspath(args.out)
    os.environ['EVIDENCE_DIR'] = out
    os.environ['RENDERED_DIR'] = osp.abspath(os.environ.get('RENDERED_DIR', 'data/rendered_people'))
    plan = yaml.safe_load((CONFIGS / 'rows.yml').read_text(encoding='utf-8'))
    if args.page and (missing := [m for m in (BEGIN, END) if m not in Path(args.page).read_text()]):
        parser.error(f'--page {args.page} has no line {missing[0].strip()}')
    try:
        tables = make_data(out, list(plan['tables']), args.smoke)
        jobs = [
            Job(table, row, seed)
            for table in tables
            for row, own in plan['tables'][table]['rows'].items()
            if args.all or own.get('core')
            for seed in (SMOKE['seeds'] if args.smoke else SEEDS)
        ]
        jobs.sort(key=lambda job: not row_of(plan, job).get('core'))
        write_configs(jobs, plan, out, args.smoke)
    except (OSError, ValueError, subprocess.CalledProcessError) as e:
        print(f'evidence: {e}', file=sys.stderr)
        return 1
    if not args.smoke:
        print(f'{len(jobs)} rows: {forecast(jobs, plan):.0f} minutes on {os.cpu_count()} cores')
    try:
        errors = run_all(jobs, plan, out)
    except KeyboardInterrupt:
        print('evidence: stopped; run this again to go on', file=sys.stderr)
        return 130
    results = Results(out, plan, class_names_of_test(Config.fromfile(CONFIGS / 'drawn_faces.py')))
    seconds = sum(float(p.read_text().split()[0]) for p in Path(out).glob('*/*/*/trained'))
    command = ' '.join(['python tools/evidence.py', *(argv or sys.argv[1:])])
    text = report(results, command, seconds)
    atomic_write(osp.join(out, 'evidence.md'), text)
    results.draw(osp.join(out, 'claims.png'))
    if args.page:
        page = Path(args.page).read_text(encoding='utf-8')
        head, tail = page.split(BEGIN)[0], page.split(END)[1]
        atomic_write(args.page, f'{head}{BEGIN}\n{text}\n{END}{tail}')
        picture = Path(args.page).parent / 'pictures' / 'evidence_claims.png'
        atomic_write(str(picture), Path(out, 'claims.png').read_bytes())
    print(text)
    return 1 if errors else 0


if __name__ == '__main__':
    sys.exit(main())
