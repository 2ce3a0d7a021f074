# u64 vmx_enter(GuestContext *rdi, u64 launched rsi): 0 after a VM exit, 1 and 2 after VMfailValid and VMfailInvalid.
# The general-purpose registers lie in the order of `tdx_abi::Registers`; the FXSAVE area follows at 0x80.
.section .text.vmx_entry, "ax", @progbits
.global vmx_enter
.global vmx_exit
vmx_enter:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rdi
    movl $0x6c14, %eax          # HOST_RSP
    vmwrite %rsp, %rax
    fxrstor64 0x80(%rdi)
    testq %rsi, %rsi
    movq 0x00(%rdi), %rax
    movq 0x08(%rdi), %rcx
    movq 0x10(%rdi), %rdx
    movq 0x18(%rdi), %rbx
    movq 0x20(%rdi), %rbp
    movq 0x28(%rdi), %rsi
    movq 0x38(%rdi), %r8
    movq 0x40(%rdi), %r9
    movq 0x48(%rdi), %r10
    movq 0x50(%rdi), %r11
    movq 0x58(%rdi), %r12
    movq 0x60(%rdi), %r13
    movq 0x68(%rdi), %r14
    movq 0x70(%rdi), %r15
    movq 0x30(%rdi), %rdi
    jne 1f
    vmlaunch
    jmp 2f
1:  vmresume
2:  movl $1, %eax
    movl $2, %ecx
    cmovcl %ecx, %eax
    popq %rdi
    jmp 3f

vmx_exit:
    xchgq %rdi, (%rsp)
    movq %rax, 0x00(%rdi)
    movq %rcx, 0x08(%rdi)
    movq %rdx, 0x10(%rdi)
    movq %rbx, 0x18(%rdi)
    movq %rbp, 0x20(%rdi)
    movq %rsi, 0x28(%rdi)
    popq %rax
    movq %rax, 0x30(%rdi)
    movq %r8, 0x38(%rdi)
    movq %r9, 0x40(%rdi)
    movq %r10, 0x48(%rdi)
    movq %r11, 0x50(%rdi)
    movq %r12, 0x58(%rdi)
    movq %r13, 0x60(%rdi)
    movq %r14, 0x68(%rdi)
    movq %r15, 0x70(%rdi)
    fxsave64 0x80(%rdi)
    xorl %eax, %eax
3:  pushq $0x1f80
    ldmxcsr (%rsp)
    addq $8, %rsp
    cld
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
