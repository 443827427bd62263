//! As much of PHP as settings files are made of: what a constant is defined as, and what is assigned to an element of an array.
//! Runs nothing; what is more than a text, a number or a variable of the environment is not known.

/// A value as the file writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text or a number.
    Text(String),
    /// A variable of the environment.
    Environment(String),
    Array(Vec<(Option<String>, Value)>),
    /// Anything else.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Text(String),
    /// A name, a number, or `$name`.
    Word(String),
    Sign(char),
}

/// The tokens of a settings file.
pub struct Php(Vec<Token>);

impl Php {
    pub fn read(source: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = source;
        while let Some(first) = rest.chars().next() {
            rest = match first {
                '#' if !rest.starts_with("#[") => behind(rest, "\n"),
                '/' if rest.starts_with("//") => behind(rest, "\n"),
                '/' if rest.starts_with("/*") => behind(&rest[2..], "*/"),
                '\'' | '"' => {
                    let (text, after) = text(&rest[1..], first);
                    tokens.push(text.map_or(Token::Sign('"'), Token::Text));
                    after
                }
                _ if is_word(first) => {
                    let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                    tokens.push(Token::Word(rest[..end].to_owned()));
                    &rest[end..]
                }
                _ => {
                    if !first.is_whitespace() {
                        tokens.push(Token::Sign(first));
                    }
                    &rest[first.len_utf8()..]
                }
            };
        }
        Self(tokens)
    }

    /// What `define('NAME', …)` gives a constant: the first one counts.
    pub fn constant(&self, name: &str) -> Option<Value> {
        (0..self.0.len()).find_map(|at| {
            let rest = self.0.get(at..)?;
            match rest {
                [Token::Word(word), Token::Sign('('), Token::Text(constant), Token::Sign(','), value @ ..]
                    if word.eq_ignore_ascii_case("define") && constant == name =>
                {
                    Some(read_value(value).0)
                }
                _ => None,
            }
        })
    }

    /// What `$variable` holds at `path` in the end: `$variable['a']['b'] = …`, or an array of arrays; the last one counts.
    pub fn element(&self, variable: &str, path: &[&str]) -> Option<Value> {
        let mut found = None;
        for at in 0..self.0.len() {
            let Some([Token::Word(word), rest @ ..]) = self.0.get(at..) else { continue };
            if word.strip_prefix('$') != Some(variable) {
                continue;
            }
            let (keys, rest) = subscripts(rest);
            let is_assigned = matches!(rest, [Token::Sign('='), next, ..] if !matches!(next, Token::Sign('=' | '>')));
            let agree = keys.iter().zip(path).all(|(key, wanted)| key == wanted);
            if !is_assigned || !agree || keys.len() > path.len() {
                continue;
            }
            let (value, _) = read_value(&rest[1..]);
            if let Some(value) = below(value, &path[keys.len()..]) {
                found = Some(value);
            }
        }
        found
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || c == '\\'
}

fn behind<'a>(text: &'a str, end: &str) -> &'a str {
    text.find(end).map_or("", |at| &text[at + end.len()..])
}

/// The text up to its closing quote, and what stands behind that; none of a text where a variable would be put in.
fn text(source: &str, quote: char) -> (Option<String>, &str) {
    let mut out = String::new();
    let mut plain = true;
    let mut chars = source.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return (plain.then_some(out), &source[at + 1..]),
            '\\' => match chars.next() {
                Some((_, next)) if next == quote || next == '\\' || quote == '"' && next == '$' => out.push(next),
                Some((_, next)) if quote == '\'' => out.extend(['\\', next]),
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                _ => plain = false,
            },
            '$' if quote == '"' => plain = false,
            _ => out.push(c),
        }
    }
    (None, "")
}

/// `['a']['b']`, and what stands behind them.
fn subscripts(mut rest: &[Token]) -> (Vec<String>, &[Token]) {
    let mut keys = Vec::new();
    while let [Token::Sign('['), Token::Text(key), Token::Sign(']'), after @ ..] = rest {
        keys.push(key.clone());
        rest = after;
    }
    (keys, rest)
}

/// A value and what stands behind it.
fn read_value(tokens: &[Token]) -> (Value, &[Token]) {
    match tokens {
        [Token::Word(word), Token::Sign('('), rest @ ..] if word.eq_ignore_ascii_case("array") => array(rest, ')'),
        [Token::Sign('['), rest @ ..] => array(rest, ']'),
        [Token::Word(word), Token::Sign('('), Token::Text(name), ..] if word.to_ascii_lowercase().contains("env") => {
            (Value::Environment(name.clone()), behind_value(tokens))
        }
        [Token::Word(word), Token::Sign('['), Token::Text(name), Token::Sign(']'), ..]
            if ["$_ENV", "$_SERVER"].contains(&word.as_str()) =>
        {
            (Value::Environment(name.clone()), behind_value(tokens))
        }
        [Token::Text(text), Token::Sign(',' | ')' | ']' | ';'), ..] => (Value::Text(text.clone()), &tokens[1..]),
        [Token::Word(word), Token::Sign(',' | ')' | ']' | ';'), ..] if word.bytes().all(|b| b.is_ascii_digit()) => {
            (Value::Text(word.clone()), &tokens[1..])
        }
        _ => (Value::Unknown, behind_value(tokens)),
    }
}

/// What stands behind an expression: at the comma, bracket or semicolon that ends it.
fn behind_value(tokens: &[Token]) -> &[Token] {
    let mut depth = 0_u32;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('(' | '[') => depth += 1,
            Token::Sign(')' | ']') if depth > 0 => depth -= 1,
            Token::Sign(',' | ';' | ')' | ']') if depth == 0 => return &tokens[at..],
            _ => {}
        }
    }
    &[]
}

fn array(mut rest: &[Token], end: char) -> (Value, &[Token]) {
    let mut entries = Vec::new();
    loop {
        match rest {
            [] => return (Value::Array(entries), rest),
            [Token::Sign(sign), after @ ..] if *sign == end => return (Value::Array(entries), after),
            [Token::Sign(',' | ';'), after @ ..] => rest = after,
            [Token::Text(key) | Token::Word(key), Token::Sign('='), Token::Sign('>'), after @ ..] => {
                let (value, after) = read_value(after);
                entries.push((Some(key.clone()), value));
                rest = after;
            }
            _ => {
                let (value, after) = read_value(rest);
                // A closing sign of another kind: the file is not what this reads.
                rest = if after.len() == rest.len() { &rest[1..] } else { after };
                entries.push((None, value));
            }
        }
    }
}

fn below(value: Value, path: &[&str]) -> Option<Value> {
    let [first, rest @ ..] = path else { return Some(value) };
    let Value::Array(entries) = value else { return None };
    let (_, value) = entries.into_iter().rev().find(|(key, _)| key.as_deref() == Some(first))?;
    below(value, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(text: &str) -> Option<Value> {
        Some(Value::Text(text.to_owned()))
    }

    #[test]
    fn constants_are_read_and_comments_are_not() {
        let php = Php::read(
            "<?php // define('DB_NAME', 'no');\n # define('DB_NAME', 'no');\n/* define('DB_NAME', 'no'); */
             define( 'DB_NAME', 'it\\'s' ); define('DB_NAME', 'second');
             define(\"DB_USER\", \"a\\\\b\\$c\"); DEFINE('PORT', 3306);
             define('DB_PASSWORD', getenv('WP_PASSWORD') ?: 'x'); define('DB_HOST', $_ENV['H']);
             define('HOME', getenv_docker('HOME_URL', 'http://x')); define('ODD', 'a' . 'b'); define('IN', \"a$b\");",
        );
        assert_eq!(php.constant("DB_NAME"), is("it's"));
        assert_eq!(php.constant("DB_USER"), is("a\\b$c"));
        assert_eq!(php.constant("PORT"), is("3306"));
        assert_eq!(php.constant("DB_PASSWORD"), Some(Value::Environment("WP_PASSWORD".to_owned())));
        assert_eq!(php.constant("DB_HOST"), Some(Value::Environment("H".to_owned())));
        assert_eq!(php.constant("HOME"), Some(Value::Environment("HOME_URL".to_owned())));
        assert_eq!(php.constant("ODD"), Some(Value::Unknown));
        assert_eq!(php.constant("IN"), Some(Value::Unknown));
        assert_eq!(php.constant("NONE"), None);
    }

    #[test]
    fn elements_are_read_however_they_are_nested() {
        let path = ["default", "default", "database"];
        for source in [
            "$databases['default']['default'] = array('database' => 'shop', 'prefix' => array('a' => ''));",
            "$databases['default']['default'] = ['database'=>'shop',];",
            "$databases = array('default' => array('default' => array('database' => 'shop')));",
            "$databases['default'] = [ \"default\" => [ 'init' => f([1, 2]), 'database' => 'shop' ] ];",
            "$databases['default']['default']['database'] = 'no'; $databases['default']['default']['database'] = 'shop';",
            "$databases = []; $databases['default']['default'] = ['database' => 'shop'];
             $databases['other']['default'] = ['database' => 'no'];
             if ($databases['default']['default']['database'] == 'no') {}",
        ] {
            assert_eq!(Php::read(source).element("databases", &path), is("shop"), "{source}");
        }
        let unknown = Php::read("$databases['default']['default'] = ['database' => $name . '_x', 'host' => 'h'];");
        assert_eq!(unknown.element("databases", &path), Some(Value::Unknown));
        assert_eq!(unknown.element("databases", &["default", "default", "host"]), is("h"));
    }

    #[test]
    fn a_broken_file_ends() {
        for source in ["define('A', ", "$databases = array(]))]", "'", "/*", "$databases['a", "[[[[", "array((((", ")"]
        {
            let php = Php::read(source);
            php.constant("A");
            php.element("databases", &["a"]);
        }
    }
}
