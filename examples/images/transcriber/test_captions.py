import unittest

import captions
from speech import Word, utterances

REPORT = """\
the meeting will begin
<s> 3.880 4.140 0.999700
the 4.150 4.370 0.847793
meeting 4.380 4.690 0.985899
will(2) 4.700 4.940 0.997303
<sil> 4.950 5.000 0.5
begin 5.010 5.410 1.000100
[SPEECH] 5.420 5.500 0.5
</s> 5.510 5.990 1.000000

<s> 7.000 7.100 1.0
</s> 7.110 7.200 1.0
at ten o'clock
<s> 3661.000 3661.100 1.0
at 3661.500 3661.700 1.0
ten 3661.800 3662.000 1.0
o'clock 3662.100 3662.9996 1.0
</s> 3663.000 3663.100 1.0
"""


class Captions(unittest.TestCase):
    def test_words_and_times_are_read_and_fillers_left_out(self):
        said = utterances(REPORT)
        self.assertEqual(
            [[word.text for word in words] for words in said],
            [["the", "meeting", "will", "begin"], ["at", "ten", "o'clock"]],
        )
        self.assertEqual(said[0][2], Word(4.70, 4.94, "will"))

    def test_webvtt(self):
        self.assertEqual(
            captions.webvtt(utterances(REPORT)),
            "WEBVTT\n\n"
            "00:00:04.150 --> 00:00:05.410\nthe meeting will begin\n\n"
            "01:01:01.500 --> 01:01:03.000\nat ten o'clock\n",
        )

    def test_plain_text(self):
        self.assertEqual(
            captions.plain_text(utterances(REPORT)),
            "[00:00:04] the meeting will begin\n[01:01:01] at ten o'clock\n",
        )

    def test_a_long_utterance_is_cut_to_what_can_be_read(self):
        words = [Word(i * 0.5, i * 0.5 + 0.4, "wordings") for i in range(40)]
        cues = captions.cues([words])
        self.assertGreater(len(cues), 3)
        for start, end, text in cues:
            self.assertLessEqual(end - start, captions.CUE_SECONDS)
            self.assertLessEqual(len(text), captions.CUE_CHARACTERS)
        self.assertEqual(" ".join(text for _, _, text in cues).split(), ["wordings"] * 40)


if __name__ == "__main__":
    unittest.main()
