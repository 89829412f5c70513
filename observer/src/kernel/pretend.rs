//! Pretending that the kernel lacks something, so that what the agent does without it can be tried on a kernel that has it.

use super::attach::Hook;

/// The configured words: `field:struct.member`, `helper:NAME`, `hook:TYPE/NAME`, `type:TYPE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pretend {
    without: Vec<String>,
}

/// What a word may begin with.
pub const PREFIXES: [&str; 4] = ["field:", "helper:", "hook:", "type:"];

impl Pretend {
    pub fn without(words: &[String]) -> Self {
        Pretend { without: words.to_vec() }
    }

    fn has(&self, word: &str) -> bool {
        self.without.iter().any(|own| own == word)
    }

    /// Whether a member or type of the kernel's is to be missing; `source` as in `OFFSET_SOURCES`.
    pub fn field(&self, source: &str) -> bool {
        self.has(&format!("field:{source}"))
    }

    pub fn helper(&self, name: &str) -> bool {
        self.has(&format!("helper:{name}"))
    }

    /// Why a hook is to be missing, if it is.
    pub fn hook(&self, hook: Hook) -> Option<String> {
        let word = [format!("hook:{hook}"), format!("type:{}", hook.program_type())]
            .into_iter()
            .find(|word| self.has(word))?;
        Some(format!("hidden by the configuration (kernel.pretend_without: {word})"))
    }
}
