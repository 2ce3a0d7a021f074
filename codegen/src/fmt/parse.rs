//! The form of a document: collections, comments, and where scalars stand. What a scalar means is read elsewhere.

use super::Error;

/// A document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Form,
    /// Comments and empty lines at the end.
    pub(super) after: Vec<Remark>,
}

/// A comment that has a line of its own, or an empty line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remark {
    Comment(String),
    Empty,
}

/// The form of a node.
#[derive(Debug)]
pub(super) enum Form {
    /// A scalar as it was written; empty if there is nothing.
    Scalar(String),
    /// `[a, b]`
    FlowList(Vec<Self>),
    /// `{ a: b }`
    FlowMap(Vec<(Self, Self)>),
    /// One item a line.
    List(Vec<Entry>),
    /// One key a line.
    Map(Vec<Entry>),
}

/// A line of a block with what belongs to it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) before: Vec<Remark>,
    /// Of a mapping.
    pub(super) key: Option<String>,
    pub(super) value: Form,
    /// The comment at the end of the line.
    pub(super) comment: Option<String>,
}

pub(super) fn parse(text: &str) -> Result<Document, Error> {
    let mut parser = Parser {
        text: text.trim_start_matches('\u{feff}').chars().collect(),
        at: 0,
        remarks: Vec::new(),
    };
    parser.between()?;
    let root = parser.block(0)?;
    parser.between()?;
    if parser.at < parser.text.len() {
        return Err(parser.unsupported("a second document or an odd indentation"));
    }
    Ok(Document {
        root,
        after: parser.remarks,
    })
}

struct Parser {
    text: Vec<char>,
    at: usize,
    /// Comments and empty lines that belong to what comes next.
    remarks: Vec<Remark>,
}

impl Parser {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn unsupported(&self, what: &'static str) -> Error {
        let end = self.at.min(self.text.len());
        let lines = self.text[..end].iter().filter(|c| **c == '\n').count();
        Error::Unsupported(lines + 1, what)
    }

    /// Column of the place where the parser is, from 0.
    fn column(&self) -> usize {
        let before = self.text[..self.at].iter().rev();
        before.take_while(|c| **c != '\n').count()
    }

    fn spaces(&mut self) {
        while matches!(self.peek(0), Some(' ' | '\r')) {
            self.at += 1;
        }
    }

    fn line_end(&self, from: usize) -> usize {
        let rest = self.text[from..].iter().position(|c| *c == '\n');
        rest.map_or(self.text.len(), |length| from + length)
    }

    fn slice(&self, from: usize, to: usize) -> String {
        self.text[from..to].iter().collect()
    }

    /// Takes the comment that begins here, up to the end of the line.
    fn comment(&mut self) -> String {
        let from = self.at;
        self.at = self.line_end(from);
        self.slice(from, self.at).trim_end().to_owned()
    }

    /// Steps over empty lines and comments up to the next token.
    fn between(&mut self) -> Result<(), Error> {
        loop {
            self.spaces();
            match self.peek(0) {
                Some('\t') => return Err(self.unsupported("a tab")),
                Some('#') => {
                    let comment = self.comment();
                    self.remarks.push(Remark::Comment(comment));
                    self.at = (self.at + 1).min(self.text.len());
                }
                Some('\n') => {
                    self.at += 1;
                    self.remarks.push(Remark::Empty);
                }
                None | Some(_) => return Ok(()),
            }
        }
    }

    /// The rest of a line after a value: nothing, or a comment.
    fn end_of_line(&mut self) -> Result<Option<String>, Error> {
        self.spaces();
        let comment = (self.peek(0) == Some('#')).then(|| self.comment());
        match self.peek(0) {
            None => Ok(comment),
            Some('\n') => {
                self.at += 1;
                Ok(comment)
            }
            Some(_) => Err(self.unsupported("text after a value")),
        }
    }

    fn is_dash(&self) -> bool {
        self.peek(0) == Some('-') && matches!(self.peek(1), None | Some(' ' | '\n' | '\r'))
    }

    /// A node whose first token is here, in a block that begins in column `least` or to the right of it.
    fn block(&mut self, least: usize) -> Result<Form, Error> {
        let column = self.column();
        if column < least || self.peek(0).is_none() {
            return Ok(Form::Scalar(String::new()));
        }
        match self.peek(0) {
            Some('&' | '*' | '!' | '%' | '?' | '@' | '`') => {
                return Err(self.unsupported("an anchor, alias, tag or directive"));
            }
            Some('-') if self.peek(1) == Some('-') && column == 0 => {
                return Err(self.unsupported("a document marker"));
            }
            _ => {}
        }
        let mut entries = Vec::new();
        if self.is_dash() {
            while self.peek(0).is_some() && self.column() == column && self.is_dash() {
                let before = core::mem::take(&mut self.remarks);
                self.at += 1;
                let (value, comment) = self.item(column)?;
                entries.push(Entry {
                    before,
                    key: None,
                    value,
                    comment,
                });
                self.between()?;
            }
            return Ok(Form::List(entries));
        }
        if !self.is_key() {
            return Err(self.unsupported("a scalar on a line of its own"));
        }
        while self.peek(0).is_some() && self.column() == column && !self.is_dash() {
            let before = core::mem::take(&mut self.remarks);
            let key = self.key()?;
            let (value, comment) = self.value(column)?;
            entries.push(Entry {
                before,
                key: Some(key),
                value,
                comment,
            });
            self.between()?;
        }
        Ok(Form::Map(entries))
    }

    /// What follows a dash in `column`.
    fn item(&mut self, column: usize) -> Result<(Form, Option<String>), Error> {
        self.spaces();
        if matches!(self.peek(0), None | Some('\n' | '#')) {
            let comment = self.end_of_line()?;
            self.between()?;
            return Ok((self.block(column + 1)?, comment));
        }
        if self.is_dash() || self.is_key() {
            return Ok((self.block(column + 1)?, None));
        }
        let value = self.inline(column)?;
        Ok((value, self.end_of_line()?))
    }

    /// What follows a key in `column`.
    fn value(&mut self, column: usize) -> Result<(Form, Option<String>), Error> {
        self.spaces();
        if matches!(self.peek(0), None | Some('\n' | '#')) {
            let comment = self.end_of_line()?;
            self.between()?;
            let least = if self.is_dash() { column } else { column + 1 };
            return Ok((self.block(least)?, comment));
        }
        let value = self.inline(column)?;
        Ok((value, self.end_of_line()?))
    }

    /// Whether a key and its colon stand here.
    fn is_key(&self) -> bool {
        let mut at = self.at;
        match self.text.get(at) {
            Some('[' | '{') | None => return false,
            Some(quote @ ('"' | '\'')) => {
                let Some(end) = self.quoted_end(at, *quote) else {
                    return false;
                };
                at = end;
                while self.text.get(at) == Some(&' ') {
                    at += 1;
                }
                return self.text.get(at) == Some(&':');
            }
            Some(_) => {}
        }
        let end = self.line_end(at);
        while at < end {
            let next = self.text.get(at + 1);
            if self.text[at] == ':' && matches!(next, None | Some(' ' | '\n' | '\r')) {
                return true;
            }
            if self.text[at] == ' ' && next == Some(&'#') {
                return false;
            }
            at += 1;
        }
        false
    }

    fn key(&mut self) -> Result<String, Error> {
        if !self.is_key() {
            return Err(self.unsupported("a line without a key"));
        }
        let from = self.at;
        if let Some(quote @ ('"' | '\'')) = self.peek(0) {
            self.at = self.quoted_end(from, quote).unwrap_or(from);
        } else {
            while !(self.peek(0) == Some(':')
                && matches!(self.peek(1), None | Some(' ' | '\n' | '\r')))
            {
                self.at += 1;
            }
        }
        let key = self.slice(from, self.at).trim_end().to_owned();
        self.spaces();
        self.at += 1;
        Ok(key)
    }

    /// Behind the closing quote of what opens at `from`.
    fn quoted_end(&self, from: usize, quote: char) -> Option<usize> {
        let mut at = from + 1;
        loop {
            match self.text.get(at)? {
                '\\' if quote == '"' => at += 2,
                c if *c == quote && quote == '\'' && self.text.get(at + 1) == Some(&'\'') => {
                    at += 2
                }
                c if *c == quote => return Some(at + 1),
                _ => at += 1,
            }
        }
    }

    /// A scalar in quotes.
    fn quoted(&mut self, quote: char) -> Result<Form, Error> {
        let from = self.at;
        let end = self.quoted_end(from, quote);
        self.at = end.ok_or_else(|| self.unsupported("a quote that does not end"))?;
        Ok(Form::Scalar(self.slice(from, self.at)))
    }

    /// A value that begins on the line of its key or dash, which stands in `column`.
    fn inline(&mut self, column: usize) -> Result<Form, Error> {
        match self.peek(0) {
            Some('[' | '{') => self.flow(),
            Some('&' | '*' | '!' | '%' | '@' | '`') => {
                Err(self.unsupported("an anchor, alias or tag"))
            }
            Some('|' | '>') => {
                let from = self.at;
                self.at = self.line_end(from);
                loop {
                    let line = (self.at + 1).min(self.text.len());
                    let end = self.line_end(line);
                    let text = self.slice(line, end);
                    let indented = text.len() - text.trim_start_matches(' ').len() > column;
                    if line >= self.text.len() || !indented && !text.trim().is_empty() {
                        break;
                    }
                    self.at = end;
                }
                Ok(Form::Scalar(self.slice(from, self.at)))
            }
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            _ => {
                let from = self.at;
                self.plain_line();
                // The scalar goes on in lines that are indented further.
                loop {
                    let mut line = self.line_end(self.at);
                    if self.slice(self.at, line).trim_start().starts_with('#') {
                        break;
                    }
                    while self.text.get(line) == Some(&'\n') {
                        line += 1;
                        while self.text.get(line) == Some(&' ') {
                            line += 1;
                        }
                    }
                    let begin = self.text[..line]
                        .iter()
                        .rev()
                        .take_while(|c| **c != '\n')
                        .count();
                    if line >= self.text.len() || begin <= column || self.text[line] == '#' {
                        break;
                    }
                    self.at = line;
                    self.plain_line();
                }
                Ok(Form::Scalar(
                    self.slice(from, self.at).trim_end().to_owned(),
                ))
            }
        }
    }

    /// Steps over a plain scalar up to a comment or the end of the line.
    fn plain_line(&mut self) {
        while let Some(c) = self.peek(0) {
            if c == '\n' || c == ' ' && self.peek(1) == Some('#') {
                return;
            }
            self.at += 1;
        }
    }

    /// Steps over spaces and line ends within braces; comments are refused there.
    fn flow_between(&mut self) -> Result<(), Error> {
        loop {
            match self.peek(0) {
                Some(' ' | '\n' | '\r') => self.at += 1,
                Some('#') => return Err(self.unsupported("a comment within braces")),
                Some('\t') => return Err(self.unsupported("a tab")),
                _ => return Ok(()),
            }
        }
    }

    /// What stands between the bracket or brace here and `close`, which may be missing.
    fn flow_items<T>(
        &mut self,
        close: char,
        missing: &'static str,
        item: fn(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.flow_between()?;
            match self.peek(0) {
                Some(',') => self.at += 1,
                Some(c) if c == close => break,
                None => return Err(self.unsupported(missing)),
                Some(_) => items.push(item(self)?),
            }
        }
        self.at += 1;
        Ok(items)
    }

    fn flow_item(&mut self) -> Result<Form, Error> {
        let item = self.flow()?;
        self.flow_between()?;
        if self.peek(0) == Some(':') {
            return Err(self.unsupported("a pair in a list"));
        }
        Ok(item)
    }

    fn flow_pair(&mut self) -> Result<(Form, Form), Error> {
        let key = self.flow()?;
        self.flow_between()?;
        if self.peek(0) != Some(':') {
            return Ok((key, Form::Scalar(String::new())));
        }
        self.at += 1;
        self.flow_between()?;
        let value = match self.peek(0) {
            Some(',' | '}') => Form::Scalar(String::new()),
            _ => self.flow()?,
        };
        Ok((key, value))
    }

    fn flow(&mut self) -> Result<Form, Error> {
        self.flow_between()?;
        match self.peek(0) {
            Some('[') => {
                let items = self.flow_items(']', "a bracket that does not end", Self::flow_item)?;
                Ok(Form::FlowList(items))
            }
            Some('{') => {
                let pairs = self.flow_items('}', "a brace that does not end", Self::flow_pair)?;
                Ok(Form::FlowMap(pairs))
            }
            Some('&' | '*' | '!' | '%' | '?' | '@' | '`') => {
                Err(self.unsupported("an anchor, alias or tag"))
            }
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            _ => {
                let from = self.at;
                while let Some(c) = self.peek(0) {
                    let ends = matches!(c, ',' | '[' | ']' | '{' | '}')
                        || c == ':'
                            && matches!(
                                self.peek(1),
                                None | Some(' ' | '\n' | '\r' | ',' | '[' | ']' | '{' | '}')
                            )
                        || c == '#' && self.at > 0 && matches!(self.text[self.at - 1], ' ' | '\n');
                    if ends {
                        break;
                    }
                    self.at += 1;
                }
                Ok(Form::Scalar(
                    self.slice(from, self.at).trim_end().to_owned(),
                ))
            }
        }
    }
}
