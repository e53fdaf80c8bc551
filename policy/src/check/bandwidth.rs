//! Bandwidth: rates that fit each other, and flows that name a class that is there.

use super::{Check, is_name};
use crate::bandwidth::{MAX_CLASSES, TOTAL};
use crate::source::Step::{Index, Key};

impl Check<'_> {
    pub(super) fn bandwidth(&mut self) {
        let bandwidth = &self.policy.bandwidth;
        if bandwidth.classes.len() > MAX_CLASSES {
            self.refuse(
                &[Key("bandwidth")],
                format!("more than {MAX_CLASSES} classes of bandwidth"),
                format!("帯域のクラスが {MAX_CLASSES} 個を超えています"),
            );
        }
        for (name, rates) in &bandwidth.classes {
            if !is_name(name) {
                self.refuse(
                    &[Key("bandwidth"), Key(name)],
                    "a class's name must be 1 to 64 letters, digits, `.`, `-` or `_`",
                    "クラス名は英数字と `.` `-` `_` で 1〜64 文字にしてください",
                );
            }
            let Some(total) = bandwidth.total else {
                continue;
            };
            for (key, rate, most) in [("up", rates.up, total.up), ("down", rates.down, total.down)]
            {
                if rate > most {
                    self.refuse(
                        &[Key("bandwidth"), Key(name), Key(key)],
                        format!("{rate} is more than the {most} of `total`"),
                        format!("{rate} は `total` の {most} を超えています"),
                    );
                }
            }
        }
        for (index, flow) in self.policy.flow.iter().enumerate() {
            let Some(class) = &flow.bandwidth else {
                continue;
            };
            let path = [Key("flow"), Index(index), Key("bandwidth")];
            if class == TOTAL {
                self.refuse(
                    &path,
                    "`total` holds for every flow already: name a class, or leave the line out",
                    "`total` はすべての flow に適用されます。クラス名を書くか、行ごと省いてください",
                );
            } else if !bandwidth.classes.contains_key(class) {
                let known: Vec<&str> = bandwidth.classes.keys().map(String::as_str).collect();
                let known = known.join("`, `");
                self.refuse(
                    &path,
                    format!("there is no class `{class}` in [bandwidth]; there is `{known}`"),
                    format!("[bandwidth] にクラス `{class}` はありません。あるのは `{known}` です"),
                );
            }
        }
    }
}
