// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps QEMU's emulation from aborting under firmware guests. Test bed only.
 *
 * QEMU's TCG (7.2, 10.0 and 11.1) aborts with "assertion failed: bql_locked()" when a nested
 * guest writes CR8 while an interrupt window is pending. KVM decides whether it intercepts those
 * writes in svm_update_cr8_intercept(vcpu, tpr, irr); with tpr 15 and irr 0 it always does.
 */
#include <linux/kprobes.h>
#include <linux/module.h>

static int always_intercept(struct kprobe *probe, struct pt_regs *regs)
{
	regs->si = 15; /* tpr */
	regs->dx = 0;  /* irr */
	return 0;
}

static struct kprobe probe = {
	.symbol_name = "svm_update_cr8_intercept",
	.pre_handler = always_intercept,
};

static int __init sekisho_cr8_init(void)
{
	return register_kprobe(&probe);
}

static void __exit sekisho_cr8_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(sekisho_cr8_init);
module_exit(sekisho_cr8_exit);
MODULE_DESCRIPTION("Intercept all CR8 writes of nested guests (emulator work-around)");
MODULE_LICENSE("GPL");
