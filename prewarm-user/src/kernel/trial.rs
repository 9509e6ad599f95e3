//! Test runs: a program over a frame, without any interface (`BPF_PROG_TEST_RUN`).

use std::time::Duration;

use aya::{
    Ebpf,
    maps::Array,
    programs::{Program, ProgramError, TestRun as _, TestRunOptions, TestRunResult},
};
use prewarm_ebpf::{abi::INGRESS, redirect::HEARTBEAT};

use super::{
    AnswerParts, Counters, Heartbeat, KernelError, Key, Known, Record, Ring, Settings, answers,
    programs::{open, take_counters, take_known, take_map, take_ring, verify},
};

/// The shortest frame that a test run takes: an Ethernet header.
pub const MIN_FRAME: usize = 14;
/// The longest frame that a test run takes: a page without the room that the kernel wants before and behind it.
pub const MAX_FRAME: usize = 4096 - 256 - 320;

/// Programs loaded for test runs. Nothing is attached.
pub struct Trial {
    bpf: Ebpf,
    ring: Ring,
    counters: Counters,
    known: Known,
}

impl Trial {
    /// Loads `ingress` so that each frame is seen as if it were the first: nothing is folded, no name is known.
    ///
    /// # Errors
    /// When the kernel refuses the object.
    pub fn ingress(object: &[u8], key: Key) -> Result<Self, KernelError> {
        let settings = Settings { window: Duration::ZERO, ..Settings::new(key) };
        Self::load(object, &settings, &[INGRESS])
    }

    /// Loads these programs.
    ///
    /// # Errors
    /// When the kernel refuses the object.
    pub fn load(object: &[u8], settings: &Settings, programs: &[&'static str]) -> Result<Self, KernelError> {
        let mut bpf = open(object, settings)?;
        for program in programs {
            verify(&mut bpf, program)?;
        }
        let (ring, counters) = (take_ring(&mut bpf)?, take_counters(&mut bpf)?);
        let known = take_known(&mut bpf)?;
        Ok(Self { bpf, ring, counters, known })
    }

    /// Runs a program `repeat` times over a frame of [`MIN_FRAME`] to [`MAX_FRAME`] bytes; gives its verdict and its
    /// mean time, to whole nanoseconds.
    ///
    /// # Errors
    /// When the kernel can't.
    pub fn run(&mut self, program: &'static str, frame: &[u8], repeat: u32) -> Result<(u32, Duration), KernelError> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = match self.bpf.program(program) {
            Some(Program::Xdp(xdp)) => xdp.test_run(options),
            Some(Program::SchedClassifier(classifier)) => classifier.test_run(options),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        let TestRunResult { return_value, duration, .. } =
            result.map_err(|source| KernelError::TestRun { program, source: Box::new(source) })?;
        Ok((return_value, duration))
    }

    /// Runs a program once over a frame and gives its verdict and what the frame became.
    ///
    /// # Errors
    /// When the kernel can't.
    pub fn transform(&mut self, program: &'static str, frame: &[u8]) -> Result<(u32, Vec<u8>), KernelError> {
        let mut out = vec![0; MAX_FRAME];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = match self.bpf.program(program) {
            Some(Program::Xdp(xdp)) => xdp.test_run(options),
            Some(Program::SchedClassifier(classifier)) => classifier.test_run(options),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        let TestRunResult { return_value, data_size_out, .. } =
            result.map_err(|source| KernelError::TestRun { program, source: Box::new(source) })?;
        out.truncate(data_size_out as usize);
        Ok((return_value, out))
    }

    /// The maps of answers, once.
    ///
    /// # Errors
    /// When they were taken before.
    pub fn answers(&mut self) -> Result<AnswerParts, KernelError> {
        answers::parts(&mut self.bpf)
    }

    /// The writer of the beat, once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn heartbeat(&mut self) -> Result<Heartbeat, KernelError> {
        take_map(&mut self.bpf, HEARTBEAT, Array::try_from).map(Heartbeat::new)
    }

    /// Takes the records that the runs left in the ring.
    pub fn records(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        while self.ring.drain(usize::MAX, |record| records.push(record)) > 0 {}
        records
    }

    /// Throws the records away.
    pub fn discard(&mut self) {
        while self.ring.drain(usize::MAX, drop) > 0 {}
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The table of known IDs.
    pub const fn known(&mut self) -> &mut Known {
        &mut self.known
    }

    /// How many instructions the verifier went through for a program, and how many bytes of native code it became.
    #[must_use]
    pub fn size(&self, program: &str) -> Option<(u32, u32)> {
        let info = self.bpf.program(program)?.info().ok()?;
        Some((info.verified_instruction_count()?, info.size_jitted()))
    }
}
