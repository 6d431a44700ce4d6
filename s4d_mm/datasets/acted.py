# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets of acted clips: CREMA-D, RAVDESS and eNTERFACE'05.

The name of a clip says its label and its actor.
"""

import re

from mmengine.registry import DATASETS

from .label_in_name import LabelInName
from .public_dataset import PublicVideoDataset


@DATASETS.register_module()
class CREMAD(LabelInName, PublicVideoDataset):
    """CREMA-D, 6 classes, 91 actors: ``1001_DFA_ANG_XX.flv``.

    The label is the emotion that was to be acted.
    """

    METAINFO = dict(
        classes=('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness'),
        split_files={},
        paper=dict(
            title='CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset',
            venue='IEEE TAFFC 2014',
            url='https://doi.org/10.1109/TAFFC.2014.2336244',
        ),
    )
    NAME_FORMAT = "'1001_DFA_ANG_XX' (ANG, DIS, FEA, HAP, NEU or SAD)"
    CODES = ('ANG', 'DIS', 'FEA', 'HAP', 'NEU', 'SAD')  # as classes

    def parse_name(self, name: str) -> tuple | None:
        """Label and actor."""
        found = re.search(r'(?:^|/)(\d{4})_[A-Z]{3}_([A-Z]{3})_(?:LO|MD|HI|XX?)(?:\.\w+)?$', name)
        if found is None or found[2] not in self.CODES:
            return None
        label = self.METAINFO['classes'][self.CODES.index(found[2])]
        return label, int(found[1])


@DATASETS.register_module()
class RAVDESS(LabelInName, PublicVideoDataset):
    """RAVDESS, 8 classes, 24 actors: ``01-01-03-01-02-01-12.mp4``.

    The fields are modality, channel, emotion, intensity, statement,
    repetition and actor. When a folder is listed, only speech with picture and
    sound (``01-01-...``) is taken, because the clips without sound (``02-``)
    have the same pictures once more.
    """

    METAINFO = dict(
        classes=('neutral', 'calm', 'happiness', 'sadness', 'anger', 'fear', 'disgust', 'surprise'),
        split_files={},
        paper=dict(
            title='The Ryerson Audio-Visual Database of Emotional Speech and '
            'Song (RAVDESS): A dynamic, multimodal set of facial and vocal '
            'expressions in North American English',
            venue='PLOS ONE 2018',
            url='https://doi.org/10.1371/journal.pone.0196391',
        ),
    )
    NAME_FORMAT = "'01-01-03-01-02-01-12' (third field 01 to 08)"

    def parse_name(self, name: str) -> tuple | None:
        """Label and actor."""
        found = re.search(r'(?:^|/)(?:\d\d-){2}0([1-8])-(?:\d\d-){3}(\d\d)(?:\.\w+)?$', name)
        if found is None:
            return None
        return self.METAINFO['classes'][int(found[1]) - 1], int(found[2])

    def is_listed(self, name: str) -> bool:
        """Whether a name is one of speech with picture and sound, or no name of RAVDESS."""
        return self.parse_name(name) is None or name.split('/')[-1].startswith('01-01-')


@DATASETS.register_module()
class ENTERFACE05(LabelInName, PublicVideoDataset):
    """eNTERFACE'05, 6 classes: ``subject 1/anger/sentence 1/s1_an_1.avi``.

    The folders say person and label. The names of the files do not: some have
    typing errors, and those of subject 11 say 12.
    """

    METAINFO = dict(
        classes=('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise'),
        split_files={},
        paper=dict(
            title="The eNTERFACE'05 Audio-Visual Emotion Database",
            venue='ICDE Workshops 2006',
            url='https://doi.org/10.1109/ICDEW.2006.145',
        ),
    )
    NAME_FORMAT = "'subject 1/anger/sentence 1/s1_an_1', with the folders of person and class"

    def parse_name(self, name: str) -> tuple | None:
        """Label and actor."""
        found = re.search(r'(?:^|/)subject[ _]?(\d+)/([a-z]+)/', name.lower())
        if found is None or found[2] not in self.METAINFO['classes']:
            return None
        return found[2], int(found[1])
