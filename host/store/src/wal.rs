//! Whether the write-ahead log lost transactions that were acknowledged.
//!
//! SQLite reads the log up to the first frame whose checksum is wrong and forgets the rest. That is
//! right after a loss of power, which can tear the transaction that was being written: the last
//! one, as each is synced before the next begins. When more follow, the disk lost something else,
//! and SQLite would go on without it and without a word.
//!
//! Not all that lies behind is lost. A transaction that could not be synced was never acknowledged;
//! the next one is written over it from the same place on, and leaves the end of a longer one where
//! it was. Each frame's checksum goes on from that of the frame before, which tells the two apart:
//! what was acknowledged is one chain of transactions, what failed is the end of a single one.

use std::io::{self, Read};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377F_0682;

/// What is lost of the log, for people; `None` when nothing is that was ever acknowledged, as far
/// as can be told.
pub(crate) fn damage(mut log: impl Read) -> io::Result<Option<String>> {
    let mut header = [0; HEADER];
    if !read_whole(&mut log, &mut header)? {
        return Ok(None);
    }
    let big_endian = number(&header, 0) == MAGIC | 1;
    let known = big_endian || number(&header, 0) == MAGIC;
    let mut sum = checksum(big_endian, [0, 0], &header[..24]);
    if !known || sum != [number(&header, 24), number(&header, 28)] {
        return Ok(
            has_content(log)?.then(|| "the header of its write-ahead log is wrong".to_owned())
        );
    }
    let page_size = number(&header, 8) as usize;
    if !(512..=65_536).contains(&page_size) {
        return Ok(Some(
            "the header of its write-ahead log makes no sense".to_owned(),
        ));
    }
    let mut frame = vec![0; FRAME_HEADER + page_size];
    let (mut frames, mut readable) = (0_u32, true);
    let mut lost = Lost::default();
    while read_whole(&mut log, &mut frame)? {
        frames += 1;
        // What is left of the log's previous round has other salts.
        if frame[8..16] != header[16..24] {
            readable = false;
            lost.chain = 0;
            continue;
        }
        let stored = [number(&frame, 16), number(&frame, 20)];
        let follows = |sum| {
            let sum = checksum(big_endian, sum, &frame[..8]);
            checksum(big_endian, sum, &frame[FRAME_HEADER..]) == stored
        };
        let follows = follows(sum);
        sum = stored;
        readable &= follows;
        if !readable {
            let ends_transaction = number(&frame, 4) != 0;
            lost.count(follows, ends_transaction);
        }
    }
    Ok(lost.acknowledged().then(|| {
        let Lost { transactions, .. } = lost;
        format!(
            "{transactions} transactions of its write-ahead log of {frames} pages cannot be read"
        )
    }))
}

/// What lies behind the end of what can be read.
#[derive(Default)]
struct Lost {
    transactions: u32,
    /// Transactions of the chain that the last frame belongs to, and the most of any chain.
    chain: u32,
    longest_chain: u32,
}

impl Lost {
    /// More ends of transactions than failures would leave. Each needs a sync of its own that
    /// failed, of a transaction shorter than all those before.
    const MOST_FAILED: u32 = 8;

    fn count(&mut self, follows: bool, ends_transaction: bool) {
        if !follows {
            self.chain = 0;
        }
        self.transactions += u32::from(ends_transaction);
        self.chain += u32::from(ends_transaction);
        self.longest_chain = self.longest_chain.max(self.chain);
    }

    /// Whether some of it was acknowledged: the last transaction may be torn, but not two.
    fn acknowledged(&self) -> bool {
        self.longest_chain > 1 || self.transactions > Self::MOST_FAILED
    }
}

/// SQLite's running checksum over pairs of 32-bit numbers.
fn checksum(big_endian: bool, [mut a, mut b]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    let number = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    for pair in bytes.chunks_exact(8) {
        a = a.wrapping_add(number(&pair[..4])).wrapping_add(b);
        b = b.wrapping_add(number(&pair[4..])).wrapping_add(a);
    }
    [a, b]
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Fills the buffer; false at the end, and for a rest that is too short.
fn read_whole(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether any byte is left that is not zero.
fn has_content(mut log: impl Read) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match log.read(&mut buffer)? {
            0 => return Ok(false),
            read if buffer[..read].iter().any(|byte| *byte != 0) => return Ok(true),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
