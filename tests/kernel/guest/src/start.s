# Page tables for the first GiB, mapped one to one: private at 0, shared at 2^39 (the SHARED bit of this platform).
.section .tables, "aw", @progbits
.balign 4096
pml4:
    .quad pdpt_private + 3
    .quad pdpt_shared + 3
    .fill 510, 8, 0
pdpt_private:
    .quad 0x0000000083
    .fill 511, 8, 0
pdpt_shared:
    .quad 0x8000000083
    .fill 511, 8, 0

.section .entry, "ax", @progbits
.global guest_entry
guest_entry:
    movq $stack_top, %rsp
    xorl %ebp, %ebp
    lgdt gdt_pointer
    lidt idt_pointer
    cld
    call build_idt
    call guest_main
1:  hlt
    jmp 1b

# Twenty-two gates; 21 and above never happen in this guest.
build_idt:
    movq $idt, %rdi
    movq $stubs, %rax
    movl $22, %ecx
1:  movq %rax, %rdx
    andl $0xffff, %edx
    orl $0x80000, %edx
    movl %edx, (%rdi)
    movq %rax, %rdx
    andl $0xffff0000, %edx
    orl $0x8e00, %edx
    movl %edx, 4(%rdi)
    movq $0, 8(%rdi)
    addq $16, %rdi
    addq $16, %rax
    decl %ecx
    jne 1b
    ret

.macro stub vector, has_code
    .balign 16
    .if \has_code == 0
    pushq $0
    .endif
    pushq $\vector
    jmp common
.endm
.balign 16
stubs:
    stub 0, 0
    stub 1, 0
    stub 2, 0
    stub 3, 0
    stub 4, 0
    stub 5, 0
    stub 6, 0
    stub 7, 0
    stub 8, 1
    stub 9, 0
    stub 10, 1
    stub 11, 1
    stub 12, 1
    stub 13, 1
    stub 14, 1
    stub 15, 0
    stub 16, 0
    stub 17, 1
    stub 18, 0
    stub 19, 0
    stub 20, 0
    stub 21, 1

common:
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %r11
    pushq %r10
    pushq %r9
    pushq %r8
    pushq %rdi
    pushq %rsi
    pushq %rbp
    pushq %rbx
    pushq %rdx
    pushq %rcx
    pushq %rax
    movq %rsp, %rdi
    movq %rsp, %rbp
    subq $512, %rsp
    andq $-16, %rsp
    fxsave64 (%rsp)
    cld
    call on_exception
    fxrstor64 (%rsp)
    movq %rbp, %rsp
    popq %rax
    popq %rcx
    popq %rdx
    popq %rbx
    popq %rbp
    popq %rsi
    popq %rdi
    popq %r8
    popq %r9
    popq %r10
    popq %r11
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    addq $16, %rsp
    iretq

.section .data.start, "aw", @progbits
.balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .quad gdt
idt_pointer:
    .word 22 * 16 - 1
    .quad idt
.balign 16
idt:
    .skip 22 * 16
.balign 4096
    .skip 0x8000
stack_top:
