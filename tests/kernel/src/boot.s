# Boot sector: copies the image from the disk to KERNEL_BASE, 32 KiB at a time through a buffer below 1 MiB, then
# goes from real mode straight to 64-bit mode with the first 4 GiB mapped one to one.
.section .boot, "awx", @progbits
.code16
.global boot_sector
.set ORIGIN, boot_sector - 0x7c00   # what a link address is above its run-time address
boot_sector:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, boot_drive - ORIGIN
    inb $0x92, %al
    orb $2, %al
    andb $0xfe, %al
    outb %al, $0x92

2:  movw $disk_packet - ORIGIN, %si
    movb $0x42, %ah
    movb boot_drive - ORIGIN, %dl
    int $0x13
    jc boot_failed
    movw $move_table - ORIGIN, %si
    movw $16384, %cx
    movb $0x87, %ah
    int $0x15
    jc boot_failed
    addl $64, disk_packet - ORIGIN + 8
    addl $32768, move_table - ORIGIN + 0x1a
    decw chunks_left - ORIGIN
    jnz 2b

    cli
    movw $0x1000, %di
    xorl %eax, %eax
    movw $2048, %cx
    rep stosl
    movl $0x2003, 0x1000
    movl $0x00000083, 0x2000
    movl $0x40000083, 0x2008
    movl $0x80000083, 0x2010
    movl $0xc0000083, 0x2018
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0x620, %eax           # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax            # EFER: LME, NXE
    wrmsr
    lgdt boot_gdt_pointer - ORIGIN
    movl $0x80010033, %eax      # CR0: PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    ljmp $8, $long_mode - ORIGIN

boot_failed:
    movw $0xe9, %dx
    movb $'!', %al
    outb %al, %dx
    hlt
    jmp boot_failed

.code64
long_mode:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $kernel_entry, %eax
    jmp *%rax

.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdt_pointer:
    .word 23
    .long boot_gdt - ORIGIN
boot_drive:
    .byte 0
.balign 4
chunks_left:
    .word __image_chunks
.balign 4
disk_packet:
    .byte 16, 0
    .word 64                    # sectors a chunk
    .word 0, 0x1000             # buffer at 0x10000
    .quad 1
.balign 8
move_table:                     # of INT 15h, AH = 87h
    .quad 0, 0
    .word 0xffff, 0x0000
    .byte 0x01, 0x93, 0, 0      # from 0x10000
    .word 0xffff, 0x0000
    .byte 0x20, 0x93, 0, 0      # to KERNEL_BASE
    .quad 0, 0

.org 510
    .byte 0x55, 0xaa

.section .entry, "ax", @progbits
.global kernel_entry
kernel_entry:
    movq $boot_stack_top, %rsp
    xorl %ebp, %ebp
    movq $__bss_start, %rdi
    movq $__bss_end, %rcx
    subq %rdi, %rcx
    xorl %eax, %eax
    cld
    rep stosb
    call kernel_main
1:  hlt
    jmp 1b

# Cleared before the first push, so it may lie in .bss.
.section .bss.boot_stack, "aw", @nobits
.balign 4096
    .skip 0x40000
boot_stack_top:
