//! A seccomp filter for one kind of thread.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Most conditions of one rule.
const MAX_CONDITIONS: usize = 3;

/// What one argument of a system call must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// Equal, in its lower 32 bits: for what the kernel takes as `int`.
    Int(u32),
    /// Equal, in all 64 bits.
    Word(u64),
    /// The lower 32 bits have, under the mask, this value.
    Masked {
        /// Which bits to look at.
        mask: u32,
        /// What they must be.
        value: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Unimplemented,
}

/// One system call that a thread may make, perhaps only with some arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    syscall: i64,
    verdict: Verdict,
    conditions: [Option<(u8, Is)>; MAX_CONDITIONS],
}

impl Rule {
    /// Allows the system call (`libc::SYS_…`) with any arguments.
    pub const fn allow(syscall: i64) -> Self {
        Self {
            syscall,
            verdict: Verdict::Allow,
            conditions: [None; MAX_CONDITIONS],
        }
    }

    /// Makes the system call fail with `ENOSYS` instead of killing: for those that the C library
    /// tries before it falls back to an older one.
    pub const fn unimplemented(syscall: i64) -> Self {
        Self {
            syscall,
            verdict: Verdict::Unimplemented,
            conditions: [None; MAX_CONDITIONS],
        }
    }

    /// Only if argument `index` (from 0) is so. Several conditions must all hold, at most three;
    /// several rules for one system call are alternatives.
    ///
    /// # Panics
    /// With a fourth condition; at compile time where the rule is a constant.
    #[must_use]
    pub const fn when(mut self, index: u8, is: Is) -> Self {
        let mut free = 0;
        while free < MAX_CONDITIONS {
            if self.conditions[free].is_none() {
                self.conditions[free] = Some((index, is));
                return self;
            }
            free += 1;
        }
        panic!("a rule has at most three conditions");
    }
}

/// Why a filter could not be made or installed. The thread must not serve without it.
#[derive(Debug, thiserror::Error)]
#[error("the system call filter of the {thread} thread could not be {what}: {reason}")]
pub struct FilterError {
    thread: &'static str,
    what: &'static str,
    reason: String,
}

/// The system calls of one kind of thread. Every other one kills the process with `SIGSYS`.
#[derive(Debug)]
pub struct Filter {
    thread: &'static str,
    /// Installed in this order. Where several filters answer, the kernel takes the strictest: kill
    /// before `ENOSYS` before allow.
    programs: Vec<BpfProgram>,
}

impl Filter {
    /// Compiles the filter. Make it before the thread needs it: this allocates, installing does
    /// not.
    ///
    /// # Errors
    /// Too many rules for one program, which only a mistake in the sets can cause.
    pub fn new(thread: &'static str, sets: &[&[Rule]]) -> Result<Self, FilterError> {
        let error = |reason: seccompiler::BackendError| FilterError {
            thread,
            what: "compiled",
            reason: reason.to_string(),
        };
        let rules = || sets.iter().copied().flatten();

        // A system call that is to seem missing must pass the filter that kills.
        let mut passes: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        let mut any: Vec<i64> = Vec::new();
        let mut missing: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for rule in rules() {
            let conditions = compile_conditions(rule).map_err(error)?;
            let alternatives = passes.entry(rule.syscall).or_default();
            if conditions.is_empty() {
                any.push(rule.syscall);
            } else {
                alternatives.push(SeccompRule::new(conditions).map_err(error)?);
            }
            if rule.verdict == Verdict::Unimplemented {
                missing.insert(rule.syscall, Vec::new());
            }
        }
        // An empty list means "with any arguments", whatever else was said.
        for syscall in any {
            passes.insert(syscall, Vec::new());
        }

        let mut programs = Vec::new();
        if !missing.is_empty() {
            let enosys = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
            programs.push(compile(missing, SeccompAction::Allow, enosys).map_err(error)?);
        }
        programs.push(
            compile(passes, SeccompAction::KillProcess, SeccompAction::Allow).map_err(error)?,
        );
        Ok(Self { thread, programs })
    }

    /// Installs the filter on the calling thread, for good. Threads that it starts afterwards
    /// inherit it. [`Sandbox::enter`](crate::Sandbox::enter) comes first.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn install(&self) -> Result<(), FilterError> {
        self.programs.iter().try_for_each(|program| {
            apply_filter(program).map_err(|error| FilterError {
                thread: self.thread,
                what: "installed",
                reason: error.to_string(),
            })
        })
    }
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, on_match, arch)?.try_into()
}

fn compile_conditions(rule: &Rule) -> Result<Vec<SeccompCondition>, seccompiler::BackendError> {
    rule.conditions
        .iter()
        .flatten()
        .map(|(index, is)| {
            let (width, operator, value) = match *is {
                Is::Int(value) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into()),
                Is::Word(value) => (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value),
                Is::Masked { mask, value } => (
                    SeccompCmpArgLen::Dword,
                    SeccompCmpOp::MaskedEq(mask.into()),
                    value.into(),
                ),
            };
            SeccompCondition::new(*index, width, operator, value)
        })
        .collect()
}
