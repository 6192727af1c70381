//! The container of model files and snapshots: a safetensors file with one JSON text under a key of its own.

use std::collections::{HashMap, TryReserveError};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorView};
use serde::Deserialize;

use crate::{Error, Result, text};

/// Most bytes of a regular file, written or read: more than the memory of any device. Snapshots have 12 bytes for each parameter.
const MOST_BYTES: u64 = 256 << 30;

/// Most bytes of a pipe or a device, which has no length to compare with the header's.
const MOST_STREAMED_BYTES: u64 = 4 << 30;

/// Most bytes of a file's header: names and shapes of all tensors, and the metadata.
const MOST_HEADER_BYTES: u64 = 32 << 20;

/// A tensor to be written.
pub(crate) struct NamedTensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Little-endian.
    pub bytes: Vec<u8>,
}

/// The bytes of a file with the tensors, and with `text` under `key`. There is one key, because several would be written in an order
/// that differs from run to run.
///
/// # Errors
/// Bytes of a tensor that do not fit its shape, and files too large to be read again.
pub(crate) fn serialize(key: &str, text: String, tensors: &[NamedTensor]) -> Result<Vec<u8>, String> {
    let serialize = || -> Result<Vec<u8>, SafeTensorError> {
        let views = tensors.iter().map(|tensor| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?;
            Ok((tensor.name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>, SafeTensorError>>()?;
        safetensors::serialize(views, Some(HashMap::from([(key.to_string(), text)])))
    };
    let bytes = serialize().map_err(|error| error.to_string())?;
    let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    within("its header", header, MOST_HEADER_BYTES)?;
    within("the file", bytes.len() as u64, MOST_BYTES)?;
    Ok(bytes)
}

/// The bytes of a file, of which no more is read than its header says it has: neither a device without end nor a file of another
/// kind takes memory.
///
/// # Errors
/// [`Error::Io`], also if there is not enough memory; [`Error::Checkpoint`] for a file that is not a safetensors file, has another
/// length than its header says, or is larger than 256 GiB (a pipe: 4 GiB).
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let about = file.metadata().map_err(Error::io(path))?;
    let length = about.is_file().then_some(about.len());
    let mut bytes = Vec::new();
    let mut read = |bytes: &mut Vec<u8>, most: u64| file.by_ref().take(most).read_to_end(bytes);
    read(&mut bytes, 8).map_err(Error::io(path))?;
    // Less than that is refused by the parser.
    let Some(header) = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return Ok(bytes) };
    within("its header", header, MOST_HEADER_BYTES).map_err(|reason| failed(path, damaged(&reason)))?;
    read(&mut bytes, header).map_err(Error::io(path))?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes[8..]).map_err(|error| failed(path, damaged(&error)))?;
    let data = metadata.data_len() as u64;
    let total = data.saturating_add(8 + header);
    let most = if length.is_some() { MOST_BYTES } else { MOST_STREAMED_BYTES };
    within("the file", total, most).map_err(|reason| failed(path, reason))?;
    if let Some(length) = length.filter(|length| *length != total) {
        let reason = format!("it has {length} bytes, and its header says {total}");
        return Err(failed(path, damaged(&reason)));
    }
    if length.is_some() {
        let memory = |error: TryReserveError| Error::io(path)(io::Error::new(ErrorKind::OutOfMemory, error));
        // The byte after the last one would show that there are more.
        bytes.try_reserve_exact(usize::try_from(data + 1).unwrap_or(usize::MAX)).map_err(memory)?;
    }
    read(&mut bytes, data + 1).map_err(Error::io(path))?;
    Ok(bytes)
}

fn within(what: &str, bytes: u64, most: u64) -> Result<(), String> {
    if bytes <= most {
        return Ok(());
    }
    Err(format!("{what} would have {bytes} bytes, more than the {most} of the largest model or snapshot"))
}

fn damaged(error: &dyn std::fmt::Display) -> String {
    format!("not a safetensors file, or truncated ({error}): use another copy of it")
}

/// The tensors of a file and the text under `key`. `kind` is the kind of file that `key` stands for.
///
/// # Errors
/// A file that is truncated or not a safetensors file, or of another kind.
pub(crate) fn read<'a>(bytes: &'a [u8], key: &str, kind: &str) -> Result<(String, SafeTensors<'a>), String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error))?;
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get(key)).cloned();
    let text = text.ok_or_else(|| format!("not a {kind}: its header has no `{key}`"))?;
    Ok((text, tensors))
}

/// Checks the tensors of a file and its text against their checksum.
///
/// # Errors
/// If it is another one.
pub(crate) fn verify(text: &str, file: &SafeTensors<'_>, crc32: u32) -> Result<(), String> {
    #[cfg(any(test, feature = "fault-injection"))]
    if crate::files::faults::checksums_are_ignored() {
        return Ok(());
    }
    let tensors = file.tensors();
    let named = tensors.iter().map(|(name, view)| (name.as_str(), view.data()));
    match checksum(text, named.collect()) == crc32 {
        true => Ok(()),
        false => Err("checksum mismatch: the file was modified or is corrupt".into()),
    }
}

/// The checksum of tensors that are to be written with a text.
pub(crate) fn checksum_of(text: &str, tensors: &[NamedTensor]) -> u32 {
    checksum(text, tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.bytes.as_slice())).collect())
}

/// CRC-32 of a text and of the names and bytes of tensors, sorted by name, since safetensors decides their order in the file. It
/// detects corruption, not forgery. Types, shapes and places of the tensors need none: they have to fit the bytes and what the reader
/// expects.
fn checksum<'a>(text: &str, mut tensors: Vec<(&'a str, &'a [u8])>) -> u32 {
    tensors.sort_by_key(|(name, _)| *name);
    let mut crc = crc32fast::Hasher::new();
    crc.update(text.as_bytes());
    for (name, bytes) in tensors {
        crc.update(name.as_bytes());
        crc.update(bytes);
    }
    crc.finalize()
}

/// The message for a file that was not written because it would not have been read as what it is.
pub(crate) fn not_read_back(reason: &str) -> String {
    format!("not written, because it could not be read back: {reason}")
}

/// The `format` of JSON metadata, which is looked at before anything else is.
///
/// # Errors
/// JSON without one, and a format other than `formats`.
pub(crate) fn check_format(json: &str, formats: RangeInclusive<u32>) -> Result<u32, String> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format: found } = parse(json)?;
    if !formats.contains(&found) {
        let (oldest, newest) = (formats.start(), formats.end());
        let reads = if oldest == newest {
            format!("format {newest}")
        } else {
            format!("formats {oldest} to {newest}")
        };
        return Err(format!(
            "the file has format {found}, and this version of phalanx reads {reads}: use the version that wrote it"
        ));
    }
    Ok(found)
}

/// Parses JSON metadata.
///
/// # Errors
/// The parser's message.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| {
        // The text is one line; what comes before the fault names its field.
        let end = if error.line() == 1 { error.column().min(json.len()) } else { 0 };
        let start = (end.saturating_sub(EXCERPT)..end).find(|at| json.is_char_boundary(*at));
        let before = start.and_then(|start| json.get(start..end));
        let before = before.map_or(String::new(), |text| format!(", after `{text}`"));
        format!("its metadata cannot be read ({error}{before})")
    })
}

/// Bytes of metadata shown in front of a fault.
const EXCERPT: usize = 60;

/// The fault of a file as an [`Error::Checkpoint`]. It may quote the file.
pub(crate) fn failed(path: &Path, reason: String) -> Error {
    Error::Checkpoint { path: path.into(), reason: text::reason(text::visible(&reason).into_owned()) }
}

/// Checks that all bytes are finite little-endian numbers of the type.
///
/// # Errors
/// The first that is not.
pub(crate) fn all_finite(dtype: Dtype, bytes: &[u8]) -> Result<(), String> {
    let faulty = match dtype {
        Dtype::F16 => {
            let values =
                bytes.as_chunks::<2>().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32());
            values.enumerate().find(|(_, value)| !value.is_finite())
        }
        _ => {
            let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            values.enumerate().find(|(_, value)| !value.is_finite())
        }
    };
    faulty
        .map_or(Ok(()), |(index, value)| Err(format!("number {index} is {value}, expected a finite number")))
}
