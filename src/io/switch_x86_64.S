/* void fiber_switch(void **save_sp, void *load_sp)
 * Saves what a callee must keep, stores the stack pointer, takes the other one and returns there. */
    .text
    .globl fiber_switch
    .type fiber_switch, @function
    .p2align 4
fiber_switch:
    .cfi_startproc
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $8, %rsp
    stmxcsr (%rsp)
    fnstcw 4(%rsp)
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    ldmxcsr (%rsp)
    fldcw 4(%rsp)
    addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .cfi_endproc
    .size fiber_switch, .-fiber_switch

/* First frame of a fiber: the argument waits in rbx, the function in r12. */
    .globl fiber_trampoline
    .type fiber_trampoline, @function
    .p2align 4
fiber_trampoline:
    .cfi_startproc
    .cfi_undefined rip
    xorl %ebp, %ebp
    movq %rbx, %rdi
    call *%r12
    ud2
    .cfi_endproc
    .size fiber_trampoline, .-fiber_trampoline
    .section .note.GNU-stack,"",@progbits
