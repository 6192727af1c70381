//! Files that are read whole.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{Error, Result};

/// The bytes of a file that has at most `most`: a device without end, or a file that is not what its name says, takes no more memory.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] if there are more bytes.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > most {
        return Err(Error::Data(format!(
            "{}: more than {most} bytes; is this the right file?",
            crate::text::path(path)
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_as_long_as_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let error = read(&path, 4).unwrap_err().to_string();
        assert!(error.contains("file: more than 4 bytes; is this"), "{error}");
        assert!(matches!(read(&folder.path().join("none"), 4), Err(Error::Io { .. })));
        #[cfg(unix)]
        read(Path::new("/dev/zero"), 1 << 20).unwrap_err();
    }
}
