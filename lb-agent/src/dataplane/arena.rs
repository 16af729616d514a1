//! Arrays of words that the agent and packets share: mapped into this process, read and stored in one piece.
#![expect(unsafe_code, reason = "the kernel's arrays are reached through a memory mapping")]

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

use super::error::DataplaneError;

/// A mapped array of 64-bit words.
pub struct MappedWords {
    map: &'static str,
    mapping: MmapRaw,
    words: usize,
    /// Keeps the file descriptor open for as long as the mapping lives.
    _data: MapData,
}

impl MappedWords {
    /// Maps an array of `words` words in all.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if the kernel refuses.
    pub fn new(map: &'static str, data: MapData, words: usize) -> Result<Self, DataplaneError> {
        let mapping = MmapOptions::new()
            .len(words * 8)
            .map_raw(data.fd().as_fd().as_raw_fd())
            .map_err(|error| DataplaneError::map(map, "mapping into memory", &error))?;
        Ok(Self { map, mapping, words, _data: data })
    }

    /// The word at `index`.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if there is none.
    pub fn load(&self, index: usize) -> Result<u64, DataplaneError> {
        Ok(self.word(index, "reading")?.load(Ordering::Acquire))
    }

    /// Stores a word that packets may be reading; everything stored before it is visible to whoever sees it.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if there is none at `index`.
    pub fn store(&self, index: usize, value: u64) -> Result<(), DataplaneError> {
        self.word(index, "writing")?.store(value, Ordering::Release);
        Ok(())
    }

    /// Stores words from `index` on, one after the other.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if there are not as many; those in front may have been stored.
    pub fn store_all(&self, index: usize, values: impl IntoIterator<Item = u64>) -> Result<(), DataplaneError> {
        for (at, value) in values.into_iter().enumerate() {
            self.word(index + at, "writing")?.store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Adds one to a word that others change, too.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if there is none at `index`.
    pub fn add_one(&self, index: usize) -> Result<(), DataplaneError> {
        self.word(index, "writing")?.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes one off a word that others change, too; 0 stays 0.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if there is none at `index`.
    pub fn subtract_one(&self, index: usize) -> Result<(), DataplaneError> {
        let word = self.word(index, "writing")?;
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| value.checked_sub(1));
        Ok(())
    }

    fn word(&self, index: usize, action: &'static str) -> Result<&AtomicU64, DataplaneError> {
        if index >= self.words {
            let reason = format!("index {index} of {}", self.words);
            return Err(DataplaneError::Map { map: self.map, action, reason });
        }
        // SAFETY: the mapping is page-aligned, `words` words long and lives as long as `self`; `index` was checked.
        // The kernel and other processes access the same memory a word at a time.
        Ok(unsafe { &*self.mapping.as_mut_ptr().cast::<AtomicU64>().add(index) })
    }
}
