//! The only file that touches packet memory: bounds checks, loads, stores, and moves of the frame's beginning.
#![expect(unsafe_code, reason = "packet memory is reached through raw pointers, each checked against the frame's end")]

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, generated::bpf_xdp_get_buff_len},
    programs::{TcContext, XdpContext},
};
use lb_common::{addr::WireWord, parse::Bytes, verdict::DropReason};

/// Copies a `T`, which is an array of integers, from `offset` of the memory between two addresses of packet memory.
#[inline(always)] // as above
fn read<T: Copy>((start, end): (usize, usize), offset: usize) -> Option<T> {
    if start + offset + size_of::<T>() <= end {
        // SAFETY: `offset..offset + size` is inside the frame (checked above), integers have any bit pattern, the read
        // makes no claim on alignment, and the copy keeps no pointer that a later move of the head could leave dangling.
        return Some(unsafe { ((start + offset) as *const T).read_unaligned() });
    }
    None
}

/// The beginning of a packet in the network stack, with its link-layer header: what the stack itself sends has all headers
/// there.
pub struct Outgoing<'a>(pub &'a TcContext);

impl Outgoing<'_> {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: as for [`Packet`]: the kernel hands a valid context to the program; volatile for the same reason.
        unsafe {
            let start = core::ptr::read_volatile(&raw const (*self.0.skb.skb).data);
            let end = core::ptr::read_volatile(&raw const (*self.0.skb.skb).data_end);
            (start as usize, end as usize)
        }
    }
}

impl Bytes for Outgoing<'_> {
    #[inline(always)] // the verifier must see the bound at each call
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        read(self.bounds(), offset)
    }

    #[inline(always)] // as above
    fn words<const N: usize>(&self, offset: usize) -> Option<[WireWord; N]> {
        read(self.bounds(), offset)
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        length <= self.0.len() as usize
    }
}

/// The frame, as far as it is linear: drivers put the headers of a multi-buffer packet into its first buffer.
pub struct Packet {
    ctx: *mut xdp_md,
    /// Whether the kernel may have put the frame into several buffers.
    is_multi_buffer: bool,
}

impl Bytes for Packet {
    #[inline(always)] // the verifier must see the bound at each call
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        read(self.bounds(), offset)
    }

    #[inline(always)] // as above
    fn words<const N: usize>(&self, offset: usize) -> Option<[WireWord; N]> {
        read(self.bounds(), offset)
    }

    #[inline(always)] // so that the plain variant has no call to a helper that older kernels lack
    fn reaches(&self, length: usize) -> bool {
        let (start, end) = self.bounds();
        if start + length <= end {
            return true;
        }
        // SAFETY: the context is valid (see `interface`).
        self.is_multi_buffer && length as u64 <= unsafe { bpf_xdp_get_buff_len(self.ctx) }
    }
}

impl Packet {
    /// The frame of a context, all in one buffer.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx, is_multi_buffer: false }
    }

    /// The frame of a context, possibly in several buffers: for programs that declare `xdp.frags` (Linux 5.18).
    #[inline(always)]
    pub fn multi_buffer(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx, is_multi_buffer: true }
    }

    /// The linear part of a frame, for functions that both variants share.
    #[inline(always)]
    pub fn linear(ctx: *mut xdp_md) -> Self {
        Self { ctx, is_multi_buffer: false }
    }

    /// What such a function takes.
    #[inline(always)]
    pub fn context(&self) -> *mut xdp_md {
        self.ctx
    }

    /// Index of the interface it came in by.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: the kernel hands a valid context to the program, for as long as the program runs.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    /// Stores two bytes at `offset`.
    ///
    /// # Errors
    /// [`DropReason::NotLinear`] if the linear part of the frame ends before.
    #[inline(always)]
    pub fn write(&mut self, offset: usize, bytes: [u8; 2]) -> Result<(), DropReason> {
        self.store(offset, u16::from_ne_bytes(bytes))
    }

    /// Stores one byte at `offset`.
    ///
    /// # Errors
    /// As [`Self::write`].
    #[inline(always)]
    pub fn write_byte(&mut self, offset: usize, byte: u8) -> Result<(), DropReason> {
        self.store(offset, byte)
    }

    /// Stores words as they are on the wire at `offset`.
    ///
    /// # Errors
    /// As [`Self::write`].
    #[inline(always)]
    pub fn write_words<const N: usize>(&mut self, offset: usize, words: [WireWord; N]) -> Result<(), DropReason> {
        let (start, end) = self.bounds();
        if start + offset + 4 * N > end {
            return Err(DropReason::NotLinear);
        }
        for (at, word) in words.iter().enumerate() {
            // SAFETY: as in `store`.
            unsafe { ((start + offset) as *mut WireWord).add(at).write_unaligned(*word) };
        }
        Ok(())
    }

    #[inline(always)] // the verifier must see the bound at each call
    fn store<T: Copy>(&mut self, offset: usize, value: T) -> Result<(), DropReason> {
        let (start, end) = self.bounds();
        if start + offset + size_of::<T>() > end {
            return Err(DropReason::NotLinear);
        }
        // SAFETY: `offset..offset + size` is inside the linear part (checked above), which nobody else touches while
        // the program runs; the write makes no claim on alignment, and `T` is an integer or an array of them.
        unsafe { ((start + offset) as *mut T).write_unaligned(value) };
        Ok(())
    }

    /// Moves the beginning of the frame: room for `by` bytes more in front, or `-by` bytes less.
    ///
    /// # Errors
    /// [`DropReason::NoHeadroom`] if the driver left less room.
    #[inline(always)]
    pub fn grow(&mut self, by: isize) -> Result<(), DropReason> {
        // SAFETY: the context is valid (see `interface`); pointers into the frame are made anew at each access.
        let result = unsafe { bpf_xdp_adjust_head(self.ctx, -by as i32) };
        if result == 0 { Ok(()) } else { Err(DropReason::NoHeadroom) }
    }

    /// Length of the frame in bytes, all buffers counted.
    #[inline(always)] // see `reaches`
    pub fn length(&self) -> usize {
        if self.is_multi_buffer {
            // SAFETY: the context is valid (see `interface`).
            return unsafe { bpf_xdp_get_buff_len(self.ctx) } as usize;
        }
        let (start, end) = self.bounds();
        end - start
    }

    /// Takes `by` bytes off the end of the frame.
    ///
    /// # Errors
    /// [`DropReason::NotLinear`] if the driver refuses.
    #[inline(always)]
    pub fn cut(&mut self, by: usize) -> Result<(), DropReason> {
        // SAFETY: as in `grow`.
        let result = unsafe { bpf_xdp_adjust_tail(self.ctx, -(by as i32)) };
        if result == 0 { Ok(()) } else { Err(DropReason::NotLinear) }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context is valid (see `interface`). Volatile, so that both ends are loaded anew after the head
        // was moved and compared as the verifier expects it.
        unsafe {
            let start = core::ptr::read_volatile(&raw const (*self.ctx).data);
            let end = core::ptr::read_volatile(&raw const (*self.ctx).data_end);
            (start as usize, end as usize)
        }
    }
}
