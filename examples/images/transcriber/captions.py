"""From timed words to captions: WebVTT and plain text."""

CUE_SECONDS = 6
CUE_CHARACTERS = 80


def cues(utterances):
    """Cuts utterances into what fits on a screen: (start, end, text) each."""
    found = []
    for words in utterances:
        line = []
        for word in words:
            text = " ".join(w.text for w in [*line, word])
            if line and (word.end - line[0].start > CUE_SECONDS or len(text) > CUE_CHARACTERS):
                found.append(_cue(line))
                line = []
            line.append(word)
        found.append(_cue(line))
    return found


def webvtt(utterances):
    blocks = [f"{_time(start)} --> {_time(end)}\n{text}\n" for start, end, text in cues(utterances)]
    return "\n".join(["WEBVTT\n", *blocks])


def plain_text(utterances):
    lines = (
        f"[{_time(words[0].start)[:8]}] {' '.join(word.text for word in words)}\n"
        for words in utterances
    )
    return "".join(lines)


def _cue(words):
    return words[0].start, words[-1].end, " ".join(word.text for word in words)


def _time(seconds):
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds / 1000:06.3f}"
