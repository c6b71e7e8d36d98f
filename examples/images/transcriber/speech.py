"""Speech recognition with PocketSphinx and its English model."""

import re
import subprocess
import tempfile
from typing import NamedTuple

# `word(variant) start end confidence`; fillers such as <sil> and [SPEECH] are no words.
TIMED_WORD = re.compile(r"([a-z'.-]+)(?:\(\d+\))? (\d+\.\d+) (\d+\.\d+) \d+\.\d+")


class Word(NamedTuple):
    """A word with its begin and end, in seconds from the begin of the track."""

    start: float
    end: float
    text: str


def recognise(track, log_file):
    """The utterances of a track in their order: a list of lists of words."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as wave:
        subprocess.run(
            [
                *("ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-i", str(track)),
                *("-ar", "16000", "-ac", "1", "-f", "wav", wave.name),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            check=True,
        )
        heard = subprocess.run(
            ["pocketsphinx_continuous", "-infile", wave.name, "-time", "yes"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
    return utterances(heard.stdout)


def utterances(report):
    """Reads what `pocketsphinx_continuous -time yes` prints."""
    found = []
    for line in report.splitlines():
        if line.startswith("<s> "):
            found.append([])
        elif (match := TIMED_WORD.fullmatch(line)) and found:
            found[-1].append(Word(float(match[2]), float(match[3]), match[1]))
    return [words for words in found if words]
