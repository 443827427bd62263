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
    /// A file that is included and cannot be read here.
    Unseen,
}

impl Token {
    fn is_include(&self) -> bool {
        let words = ["include", "include_once", "require", "require_once"];
        matches!(self, Token::Word(word) if words.iter().any(|one| word.eq_ignore_ascii_case(one)))
    }
}

/// Files that are included from included ones are read so deep.
const DEPTH: u32 = 4;
/// No settings file has more brackets in one another; what comes behind those is not read.
const NESTED: u32 = 100;

/// The tokens of a settings file.
pub struct Php(Vec<Token>);

impl Php {
    pub fn read(source: &str) -> Self {
        let (mut tokens, mut depth) = (Vec::new(), 0_u32);
        let mut rest = source;
        while let Some(first) = rest.chars().next().filter(|_| depth < NESTED) {
            match first {
                '(' | '[' => depth += 1,
                ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            rest = match first {
                '#' if !rest.starts_with("#[") => behind(rest, "\n"),
                '/' if rest.starts_with("//") => behind(rest, "\n"),
                '/' if rest.starts_with("/*") => behind(&rest[2..], "*/"),
                '<' if rest.starts_with("<<<") => {
                    tokens.push(Token::Sign('"'));
                    behind_heredoc(&rest[3..])
                }
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

    /// The same with the files that it includes in their places; `open`: the text of one by its path, which begins with `/`
    /// where it lies beside this one, or is a whole one.
    pub fn with_included(self, open: &dyn Fn(&str) -> Included) -> Self {
        self.included(open, DEPTH)
    }

    fn included(self, open: &dyn Fn(&str) -> Included, depth: u32) -> Self {
        let certain = self.certain();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(first) = self.0.get(at) {
            at += 1;
            if !first.is_include() {
                tokens.push(first.clone());
                continue;
            }
            let is_certain = certain[at - 1];
            let rest = &self.0[at..];
            let is_end = |two: &[Token]| two[0] == Token::Sign(';') || two == [Token::Sign('?'), Token::Sign('>')];
            let last = rest.len() - usize::from(rest.last() == Some(&Token::Sign(';')));
            let end = rest.windows(2).position(is_end).unwrap_or(last);
            let path = if depth == 0 { None } else { path(&rest[..end]) };
            match path.map_or(Included::Unseen, open) {
                Included::Nothing => {}
                Included::Unseen => tokens.push(Token::Unseen),
                Included::Source(source) => {
                    let inner = Self::read(&source).included(open, depth - 1).0;
                    // What it says depends on what the include depends on.
                    tokens.extend((!is_certain).then_some(Token::Sign('{')));
                    tokens.extend(inner);
                    tokens.extend((!is_certain).then_some(Token::Sign('}')));
                }
            }
            at += end;
        }
        Self(tokens)
    }

    /// Of each token, whether it begins a statement that runs in any case.
    fn certain(&self) -> Vec<bool> {
        let mut depth = 0_u32;
        let mut before: Option<&Token> = None;
        let certain = self.0.iter().map(|token| {
            match token {
                Token::Sign('{') => depth += 1,
                // `if (…):`, up to `endif`.
                Token::Sign(':') if before == Some(&Token::Sign(')')) => depth += 1,
                Token::Sign('}') => depth = depth.saturating_sub(1),
                Token::Word(word) if word.to_ascii_lowercase().starts_with("end") => depth = depth.saturating_sub(1),
                _ => {}
            }
            let begins = match before {
                None | Some(Token::Sign(';' | '}' | '@' | '>') | Token::Unseen) => true,
                Some(Token::Word(word)) => word == "php",
                Some(_) => false,
            };
            before = Some(token);
            depth == 0 && begins
        });
        certain.collect()
    }

    /// What `define('NAME', …)` gives a constant: the first one counts. Where that depends on something, and others say
    /// otherwise, it is not known.
    pub fn constant(&self, name: &str) -> Option<Value> {
        let certain = self.certain();
        agreed((0..self.0.len()).filter_map(|at| match self.0.get(at..)? {
            [Token::Word(word), Token::Sign('('), Token::Text(constant), Token::Sign(','), value @ ..]
                if word.trim_start_matches('\\').eq_ignore_ascii_case("define") && constant == name =>
            {
                Some((Some(read_value(value).0), certain[at]))
            }
            [Token::Unseen, ..] => Some((Some(Value::Unknown), certain[at])),
            _ => None,
        }))
    }

    /// What `$variable` holds at `path` in the end: `$variable['a']['b'] = …`, or an array of arrays; the last one counts.
    /// Where that depends on something, and others say otherwise, it is not known.
    pub fn element(&self, variable: &str, path: &[&str]) -> Option<Value> {
        let certain = self.certain();
        agreed((0..self.0.len()).rev().filter_map(|at| {
            let (word, rest) = match self.0.get(at..)? {
                [Token::Word(word), rest @ ..] => (word, rest),
                [Token::Unseen, ..] => return Some((Some(Value::Unknown), certain[at])),
                _ => return None,
            };
            if word.strip_prefix('$') != Some(variable) {
                return None;
            }
            let (keys, rest) = subscripts(rest);
            let is_assigned = matches!(rest, [Token::Sign('='), next, ..] if !matches!(next, Token::Sign('=' | '>')));
            let agree = keys.iter().zip(path).all(|(key, wanted)| key == wanted);
            if !is_assigned || !agree || keys.len() > path.len() {
                return None;
            }
            Some((below(read_value(&rest[1..]).0, &path[keys.len()..]), certain[at]))
        }))
    }
}

/// What became of a file that is included.
pub enum Included {
    Source(String),
    /// There is none, or it says nothing that matters.
    Nothing,
    Unseen,
}

/// The path that an expression is, where that is plain: one beside the file, with `/` before it, or a whole one.
fn path(mut tokens: &[Token]) -> Option<&str> {
    while let [Token::Sign('('), inner @ .., Token::Sign(')')] = tokens {
        tokens = inner;
    }
    let [before @ .., Token::Text(last)] = tokens else { return None };
    let before: String = before
        .iter()
        .map(|token| match token {
            Token::Text(text) | Token::Word(text) => text.clone(),
            Token::Sign(sign) => sign.to_string(),
            Token::Unseen => "?".to_owned(),
        })
        .collect();
    let beside = ["__DIR__.", "dirname(__FILE__).", "ABSPATH.", "$app_root./.$site_path."];
    let is_plain = before.is_empty() || beside.contains(&before.as_str());
    is_plain.then_some(last)
}

/// The value that counts first, of those that may be given with whether they are in any case.
fn agreed(given: impl Iterator<Item = (Option<Value>, bool)>) -> Option<Value> {
    let mut found: Option<Option<Value>> = None;
    for (value, is_certain) in given {
        if found.as_ref().is_some_and(|other| *other != value) {
            return Some(Value::Unknown);
        }
        found = Some(value);
        if is_certain {
            break;
        }
    }
    found.flatten()
}

/// What stands behind `<<<NAME`, the lines up to NAME, and NAME.
fn behind_heredoc(source: &str) -> &str {
    let Some((name, mut rest)) = source.split_once('\n') else { return "" };
    let name = name.trim().trim_matches(['\'', '"']);
    loop {
        let line = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = line.strip_prefix(name).filter(|after| !after.starts_with(is_word)) {
            return after;
        }
        match rest.split_once('\n') {
            Some((_, next)) => rest = next,
            None => return "",
        }
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
    let Value::Array(entries) = value else { return Some(Value::Unknown) };
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
    fn what_depends_on_something_is_known_where_all_agree() {
        for (source, expected) in [
            ("if ($a) { define('N', 'a'); } else { define('N', 'b'); }", Value::Unknown),
            ("if ($a) define('N', 'a'); else define('N', 'b');", Value::Unknown),
            ("if ($a) { define('N', 'a'); } define('N', 'b');", Value::Unknown),
            ("if ($a) { define('N', 'a'); } define('N', 'a');", Value::Text("a".to_owned())),
            ("define('N', 'a'); if ($a) { define('N', 'b'); }", Value::Text("a".to_owned())),
            ("defined('N') || \\define('N', 'a');", Value::Text("a".to_owned())),
            ("$a && define('N', 'a'); define('N', 'b');", Value::Unknown),
            ("if ($a): define('M', 1); define('N', 'a'); else: define('N', 'b'); endif;", Value::Unknown),
            ("if ($a): endif; define('N', 'a'); define('N', 'b');", Value::Text("a".to_owned())),
            ("$x = <<<EOT\n define('N', 'no');\n EOTS;\n  EOT;\n@define('N', 'a');", Value::Text("a".to_owned())),
            ("$x = <<<'EOT'\ndefine('N', 'no');", Value::Unknown),
        ] {
            let found = Php::read(source).constant("N").unwrap_or(Value::Unknown);
            assert_eq!(found, expected, "{source}");
        }
        for (source, expected) in [
            ("$s['a'] = 'x'; if ($b) { $s['a'] = 'y'; }", Some(Value::Unknown)),
            ("if ($b) { $s['a'] = 'y'; } $s['a'] = 'x';", is("x")),
            ("$s['a'] = 'x'; $s = [];", None),
            ("$s['a'] = 'x'; $s = $t;", Some(Value::Unknown)),
        ] {
            assert_eq!(Php::read(source).element("s", &["a"]), expected, "{source}");
        }
    }

    #[test]
    fn what_is_included_is_read_in_its_place() {
        let open = |path: &str| match path {
            "/local.php" => Included::Source("<?php $s['a'] = 'local'; define('N', 'local');".to_owned()),
            "/twice.php" => Included::Source("<?php include __DIR__ . '/local.php' ?> $s['b'] = 1;".to_owned()),
            "/round.php" => Included::Source("<?php include __DIR__ . '/round.php';".to_owned()),
            "/etc/other.php" => Included::Unseen,
            _ => Included::Nothing,
        };
        for (source, expected) in [
            ("$s['a'] = 'x'; include __DIR__ . '/local.php';", is("local")),
            ("$s['a'] = 'x'; include __DIR__ . '/twice.php';", is("local")),
            ("include $app_root . '/' . $site_path . '/local.php'; $s['a'] = 'x';", is("x")),
            ("$s['a'] = 'x'; require_once('/none.php');", is("x")),
            ("$s['a'] = 'x'; require_once('/etc/other.php');", Some(Value::Unknown)),
            ("$s['a'] = 'x'; require __DIR__ . '/' . $env . '.php';", Some(Value::Unknown)),
            ("$s['a'] = 'x'; include \"/settings.$env.php\";", Some(Value::Unknown)),
            ("$s['a'] = 'x'; include dirname(__DIR__) . '/local.php';", Some(Value::Unknown)),
            ("$s['a'] = 'x'; include __DIR__ . '/round.php';", Some(Value::Unknown)),
            ("require __DIR__ . '/' . $env . '.php'; $s['a'] = 'x';", is("x")),
            (
                "$s['a'] = 'x'; if ($c) include __DIR__ . '/local.php'; else include __DIR__ . '/none.php';",
                Some(Value::Unknown),
            ),
            ("$s['a'] = 'x'; file_exists($f) && include __DIR__ . '/local.php';", Some(Value::Unknown)),
            (
                "$s['a'] = 'x'; if (file_exists(__DIR__ . '/local.php')) { include __DIR__ . '/local.php'; }",
                Some(Value::Unknown),
            ),
            ("if (file_exists(__DIR__ . '/local.php')) { include __DIR__ . '/local.php'; }", is("local")),
        ] {
            assert_eq!(Php::read(source).with_included(&open).element("s", &["a"]), expected, "{source}");
        }
        assert_eq!(Php::read("include '/local.php';").with_included(&open).constant("N"), is("local"));
    }

    #[test]
    fn a_broken_file_ends() {
        for source in [
            "define('A', ",
            "<<<",
            "include",
            "}}{",
            "$databases = array(]))]",
            "'",
            "/*",
            "$databases['a",
            "[[[[",
            "array((((",
            ")",
        ] {
            let php = Php::read(source).with_included(&|_| Included::Unseen);
            php.constant("A");
            php.element("databases", &["a"]);
        }
        let deep = format!("$databases = {}", "[".repeat(1_000_000));
        assert_eq!(Php::read(&deep).element("databases", &["a"]), None);
    }
}
