//! How much of what was spoken arrived in a transcript.

/// The words of a text: lower case, without punctuation, small numbers spelled out, so that
/// "10 o'clock" and "Ten o'clock," are the same words.
pub fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’')
        .map(|word| {
            word.chars()
                .filter(|c| c.is_alphanumeric())
                .flat_map(char::to_lowercase)
                .collect()
        })
        .filter(|word: &String| !word.is_empty())
        .map(spelled_out)
        .collect()
}

/// The share of `spoken` that the cues of a WebVTT text hold, in the same order: 0 for none of it,
/// 1 for all. Words beyond those spoken cost nothing.
pub fn words_heard(spoken: &[String], vtt: &str) -> f64 {
    if spoken.is_empty() {
        return 1.0;
    }
    let heard = words(&cue_text(vtt));
    longest_common_subsequence(spoken, &heard) as f64 / spoken.len() as f64
}

fn spelled_out(word: String) -> String {
    const NUMBERS: [&str; 13] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve",
    ];
    match word.as_str() {
        "1st" => "first".into(),
        "2nd" => "second".into(),
        "3rd" => "third".into(),
        digits => match digits.parse::<usize>().ok().and_then(|n| NUMBERS.get(n)) {
            Some(number) => (*number).to_owned(),
            None => word,
        },
    }
}

/// What the cues say: no header, notes, styles, cue identifiers, times or `<v Speaker>` tags.
fn cue_text(vtt: &str) -> String {
    let mut text = String::new();
    let normalized = vtt.replace("\r\n", "\n");
    for block in normalized.split("\n\n") {
        let mut lines = block.lines().skip_while(|line| !line.contains("-->"));
        if lines.next().is_none() {
            continue;
        }
        for line in lines {
            let mut in_tag = false;
            text.extend(line.chars().filter(|&c| {
                in_tag |= c == '<';
                let keep = !in_tag;
                in_tag &= c != '>';
                keep
            }));
            text.push(' ');
        }
    }
    text
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    // One row of the usual table: row[j] is the answer for what was seen of a, and b[..j].
    let mut row = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if word == other {
                diagonal + 1
            } else {
                above.max(row[j])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{words, words_heard};

    const SPOKEN: &str = "The meeting will begin at ten o'clock in the large conference room.";

    #[test]
    fn case_punctuation_and_digits_do_not_matter() {
        assert_eq!(
            words("At TEN o’clock, sharp!"),
            words("at 10 o'clock sharp")
        );
        assert_eq!(words("the 2nd floor"), words("The second floor."));
    }

    #[test]
    fn everything_but_the_spoken_words_is_left_out() {
        let vtt = "WEBVTT\n\nNOTE the large conference room\n\n1\n00:00:01.000 --> 00:00:03.000\n\
                   <v Alice>The meeting will begin at 10 o'clock</v>\n\n\
                   00:00:03.000 --> 00:00:05.000\nin the large\nconference room\n";
        assert_eq!(words_heard(&words(SPOKEN), vtt), 1.0);
        let only_note = "WEBVTT\n\nNOTE the large conference room\n";
        assert_eq!(words_heard(&words(SPOKEN), only_note), 0.0);
    }

    #[test]
    fn a_missing_half_is_half() {
        let vtt = "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\nthe meeting will begin at ten\n";
        assert_eq!(words_heard(&words(SPOKEN), vtt), 0.5);
    }

    #[test]
    fn words_in_another_order_are_not_all_heard() {
        let spoken = words("one two three four");
        let vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\nfour three two one\n";
        assert_eq!(words_heard(&spoken, vtt), 0.25);
    }
}
