//! JSON for structured settings, small enough for a policy.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A text.
    Text(String),
    /// An array.
    Array(Vec<Value>),
    /// An object, in the order it was written.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The text, if that is what it is.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// What was expected, and how many bytes into the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// What was expected.
    pub expected: &'static str,
    /// After how many bytes of the text.
    pub offset: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not JSON: expected {} at byte {}",
            self.expected, self.offset
        )
    }
}

/// Arrays and objects may be nested this deep.
const DEPTH: usize = 32;

/// Reads one value, which must be all of the text.
///
/// # Errors
/// When the text is not JSON, names a key of an object twice, or nests deeper than 32.
pub fn parse(text: &str) -> Result<Value, Malformed> {
    let mut parser = Parser { text, at: 0 };
    parser.space();
    let value = parser.value(DEPTH)?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.expected("the end"));
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn expected(&self, expected: &'static str) -> Malformed {
        Malformed {
            expected,
            offset: self.at,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(token.as_bytes());
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        match self.peek() {
            Some(b'{' | b'[') if depth == 0 => Err(self.expected("less nesting")),
            Some(b'{') => self.object(depth - 1),
            Some(b'[') => self.array(depth - 1),
            Some(b'"') => Ok(Value::Text(self.text()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.eat("true") => Ok(Value::Bool(true)),
            _ if self.eat("false") => Ok(Value::Bool(false)),
            _ if self.eat("null") => Ok(Value::Null),
            _ => Err(self.expected("a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut members: Vec<(String, Value)> = Vec::new();
        self.eat("{");
        self.space();
        if self.eat("}") {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            let begin = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key in quotes"));
            }
            let key = self.text()?;
            if members.iter().any(|(known, _)| *known == key) {
                return Err(Malformed {
                    expected: "each key once",
                    offset: begin,
                });
            }
            self.space();
            if !self.eat(":") {
                return Err(self.expected("':'"));
            }
            self.space();
            members.push((key, self.value(depth)?));
            self.space();
            if self.eat("}") {
                return Ok(Value::Object(members));
            }
            if !self.eat(",") {
                return Err(self.expected("',' or '}'"));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        self.eat("[");
        self.space();
        if self.eat("]") {
            return Ok(Value::Array(items));
        }
        loop {
            self.space();
            items.push(self.value(depth)?);
            self.space();
            if self.eat("]") {
                return Ok(Value::Array(items));
            }
            if !self.eat(",") {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, Malformed> {
        let begin = self.at;
        self.eat("-");
        let leading_zero = self.peek() == Some(b'0');
        if self.digits()? > 1 && leading_zero {
            return Err(Malformed {
                expected: "a number without leading zeros",
                offset: begin,
            });
        }
        if self.eat(".") {
            self.digits()?;
        }
        if self.eat("e") || self.eat("E") {
            let _sign = self.eat("+") || self.eat("-");
            self.digits()?;
        }
        Ok(Value::Number(self.text[begin..self.at].into()))
    }

    fn digits(&mut self) -> Result<usize, Malformed> {
        let begin = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == begin {
            Err(self.expected("a digit"))
        } else {
            Ok(self.at - begin)
        }
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let mut out = String::new();
        self.eat("\"");
        loop {
            let rest = &self.text[self.at..];
            let plain = rest
                .find(|c| c < ' ' || c == '"' || c == '\\')
                .unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.at += plain;
            if self.eat("\"") {
                return Ok(out);
            }
            if !self.eat("\\") {
                return Err(self.expected("'\"'"));
            }
            out.push(self.escaped()?);
        }
    }

    fn escaped(&mut self) -> Result<char, Malformed> {
        let escape = self.peek().ok_or_else(|| self.expected("an escape"))?;
        self.at += 1;
        Ok(match escape {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => {
                self.at -= 1;
                return Err(self.expected("an escape"));
            }
        })
    }

    /// The rest of `\uXXXX`, or of the pair of them that stands for a character beyond 16 bits.
    fn unicode(&mut self) -> Result<char, Malformed> {
        let begin = self.at;
        let first = self.hex()?;
        let code = if (0xD800..0xDC00).contains(&first) && self.eat("\\u") {
            let second = self.hex()?;
            0x10000 + ((first - 0xD800) << 10) + (second.wrapping_sub(0xDC00) & 0x3FF)
        } else {
            first
        };
        char::from_u32(code).ok_or(Malformed {
            expected: "a character",
            offset: begin,
        })
    }

    fn hex(&mut self) -> Result<u32, Malformed> {
        let digits = self.text.get(self.at..self.at + 4);
        let code = digits
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values() {
        let text = r#" { "a" : [1, -2.5e3, true, null], "b\n\u00e9\ud83d\ude00": {"c": "d"} , "e": {}, "f": [] } "#;
        let number = |text: &str| Value::Number(text.into());
        assert_eq!(
            parse(text),
            Ok(Value::Object(vec![
                (
                    "a".into(),
                    Value::Array(vec![
                        number("1"),
                        number("-2.5e3"),
                        Value::Bool(true),
                        Value::Null
                    ])
                ),
                (
                    "b\né😀".into(),
                    Value::Object(vec![("c".into(), Value::Text("d".into()))])
                ),
                ("e".into(), Value::Object(vec![])),
                ("f".into(), Value::Array(vec![])),
            ]))
        );
    }

    #[test]
    fn refuses_what_is_not_json() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "tru",
            "1 2",
            "{\"a\":1,\"a\":2}",
            "\"\\ud800\"",
            "\"\\u12\"",
            "\"\\u+123\"",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&("[".repeat(33) + &"]".repeat(33))).is_err());
        assert!(parse(&("[".repeat(32) + &"]".repeat(32))).is_ok());
    }

    #[test]
    fn says_where() {
        let error = parse("{\"a\" 1}").unwrap_err();
        assert_eq!(
            alloc::format!("{error}"),
            "not JSON: expected ':' at byte 5"
        );
    }
}
