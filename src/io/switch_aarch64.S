/* void fiber_switch(void **save_sp, void *load_sp): as the x86-64 one, for AAPCS64. */
    .text
    .globl fiber_switch
    .type fiber_switch, %function
    .p2align 4
fiber_switch:
    .cfi_startproc
    sub sp, sp, #176
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #176
    ret
    .cfi_endproc
    .size fiber_switch, .-fiber_switch

/* First frame of a fiber: the argument waits in x19, the function in x20. */
    .globl fiber_trampoline
    .type fiber_trampoline, %function
    .p2align 4
fiber_trampoline:
    .cfi_startproc
    .cfi_undefined x30
    mov x29, #0
    mov x0, x19
    blr x20
    brk #1
    .cfi_endproc
    .size fiber_trampoline, .-fiber_trampoline
    .section .note.GNU-stack,"",%progbits
