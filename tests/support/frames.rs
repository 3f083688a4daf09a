//! PostgreSQL's messages as bytes, built and split by hand: independent of the code under test.

use std::io::{self, Read};

/// The protocol version that every server speaks.
pub const PROTOCOL_3_0: i32 = 3 << 16;
pub const PROTOCOL_3_2: i32 = (3 << 16) | 2;
pub const SSL_REQUEST: i32 = 80_877_103;
pub const GSSENC_REQUEST: i32 = 80_877_104;
pub const CANCEL_REQUEST: i32 = 80_877_102;
/// What a test is prepared to read.
const MAX_LENGTH: i32 = 256 << 20;

/// A message with a type byte, without its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Frame {
    /// Reads one message.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut tag = [0];
        from.read_exact(&mut tag)?;
        let body = read_body(from)?;
        Ok(Self { tag: tag[0], body })
    }

    /// A field of an ErrorResponse or NoticeResponse: `C` is the SQLSTATE, `M` the message.
    pub fn field(&self, code: u8) -> Option<String> {
        self.body
            .split(|&byte| byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }

    /// The strings of a body that ends each with a zero byte, such as ParameterStatus and CommandComplete.
    pub fn strings(&self) -> Vec<String> {
        let text = self.body.strip_suffix(b"\0").unwrap_or(&self.body);
        text.split(|&byte| byte == 0)
            .map(|string| String::from_utf8_lossy(string).into_owned())
            .collect()
    }

    /// The columns of a DataRow, as text.
    pub fn columns(&self) -> Vec<Option<String>> {
        assert_eq!(self.tag, b'D', "{self:?} is a DataRow");
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk() {
            let (value, after) = match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => (Some(&after[..length]), &after[length..]),
                Err(_) => (None, after),
            };
            columns.push(value.map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
            rest = after;
        }
        columns
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.body[..self.body.len().min(200)];
        let tag = char::from(self.tag);
        write!(f, "{tag:?}[{}] {}", self.body.len(), shown.escape_ascii())
    }
}

/// Reads a length and what it covers.
pub fn read_body(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = i32::from_be_bytes(length);
    assert!(
        (4..MAX_LENGTH).contains(&length),
        "a message says it is {length} long"
    );
    let mut body = vec![0; usize::try_from(length - 4).expect("it is at least 4")];
    from.read_exact(&mut body)?;
    Ok(body)
}

/// Any message with a type byte.
pub fn frame(tag: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(untagged(body));
    bytes
}

/// A message without a type byte, as at the start of a connection.
pub fn untagged(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = i32::try_from(body.len() + 4).expect("a test's message is small");
    [&length.to_be_bytes(), body].concat()
}

/// A StartupMessage.
pub fn startup(version: i32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(text(name));
        body.extend(text(value));
    }
    body.push(0);
    untagged(body)
}

/// SSLRequest or GSSENCRequest.
pub fn request(code: i32) -> Vec<u8> {
    untagged(code.to_be_bytes())
}

/// A CancelRequest.
pub fn cancel(pid: i32, secret: &[u8]) -> Vec<u8> {
    untagged([&CANCEL_REQUEST.to_be_bytes(), &pid.to_be_bytes(), secret].concat())
}

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', text(sql))
}

/// Parse without parameter types.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', [text(name), text(sql), vec![0, 0]].concat())
}

/// Parse with the oids of parameter types.
pub fn parse_typed(name: &str, sql: &str, types: &[i32]) -> Vec<u8> {
    let mut body = [text(name), text(sql)].concat();
    let count = i16::try_from(types.len()).expect("a test has few parameters");
    body.extend(count.to_be_bytes());
    body.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
    frame(b'P', body)
}

/// Bind with text parameters and text results.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    let mut body = [text(portal), text(statement), vec![0, 0]].concat();
    let count = i16::try_from(parameters.len()).expect("a test has few parameters");
    body.extend(count.to_be_bytes());
    for parameter in parameters {
        match parameter {
            Some(value) => body.extend(untagged_value(value)),
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    body.extend([0, 0]);
    frame(b'B', body)
}

/// Describe: `kind` is `S` or `P`.
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    frame(b'D', [vec![kind], text(name)].concat())
}

/// Close: `kind` is `S` or `P`.
pub fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', [vec![kind], text(name)].concat())
}

/// Execute without a row limit.
pub fn execute(portal: &str) -> Vec<u8> {
    frame(b'E', [text(portal), vec![0; 4]].concat())
}

/// Execute with a row limit.
pub fn execute_some(portal: &str, rows: i32) -> Vec<u8> {
    frame(b'E', [text(portal), rows.to_be_bytes().to_vec()].concat())
}

/// Parse, Bind and Execute of the unnamed statement, without Sync.
pub fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), execute("")].concat()
}

/// The oid of a function of two integers.
pub const INT4PL: i32 = 177;

/// FunctionCall of [`INT4PL`] or another function of two integers, all in text.
pub fn call(function: i32, arguments: [&str; 2]) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 0, 0, 2]);
    for argument in arguments {
        body.extend(untagged_value(argument));
    }
    body.extend([0, 0]);
    frame(b'F', body)
}

/// CopyData.
pub fn copy_data(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(b'd', bytes)
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    frame(b'c', [])
}

/// CopyFail.
pub fn copy_fail(reason: &str) -> Vec<u8> {
    frame(b'f', text(reason))
}

/// Sync.
pub fn sync() -> Vec<u8> {
    frame(b'S', [])
}

/// Flush.
pub fn flush() -> Vec<u8> {
    frame(b'H', [])
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    frame(b'X', [])
}

/// Parse, Bind, Describe, Execute and Sync of the unnamed statement.
pub fn extended(sql: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    [
        parse("", sql),
        bind("", "", parameters),
        describe(b'P', ""),
        execute(""),
        sync(),
    ]
    .concat()
}

/// ParameterStatus.
pub fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    frame(b'S', [text(name), text(value)].concat())
}

/// ReadyForQuery: `status` is `I`, `T` or `E`.
pub fn ready_for_query(status: u8) -> Vec<u8> {
    frame(b'Z', [status])
}

/// CommandComplete.
pub fn command_complete(tag: &str) -> Vec<u8> {
    frame(b'C', text(tag))
}

/// A DataRow of text columns.
pub fn data_row(columns: &[&str]) -> Vec<u8> {
    let count = i16::try_from(columns.len()).expect("a test has few columns");
    let mut body = count.to_be_bytes().to_vec();
    for column in columns {
        body.extend(untagged_value(column));
    }
    frame(b'D', body)
}

/// ErrorResponse.
pub fn error_response(severity: &str, sqlstate: &str, message: &str) -> Vec<u8> {
    let fields = [
        (b'S', severity),
        (b'V', severity),
        (b'C', sqlstate),
        (b'M', message),
    ];
    let mut body = Vec::new();
    for (code, value) in fields {
        body.push(code);
        body.extend(text(value));
    }
    body.push(0);
    frame(b'E', body)
}

/// A string and its zero byte.
pub fn text(string: &str) -> Vec<u8> {
    [string.as_bytes(), &[0]].concat()
}

/// A value after its length, which does not count itself.
fn untagged_value(value: &str) -> Vec<u8> {
    let length = i32::try_from(value.len()).expect("a test's value is small");
    [&length.to_be_bytes(), value.as_bytes()].concat()
}

/// The last value that was reported for a parameter.
pub fn parameter<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let last = parameters.iter().rfind(|(reported, _)| reported == name);
    last.map(|(_, value)| value.as_str())
}
