/* elf.h: a relocatable object file being put together: three sections, symbols, and addresses to be filled in by the linker. */
#ifndef TT_ELF_H
#define TT_ELF_H

#include "codegen.h"

typedef enum { ELF_TEXT = 1, ELF_CONST, ELF_TABLE, ELF_N_SECTIONS } elf_section;      /* code; constants; constants with addresses in them */
typedef struct elf elf;

elf *elf_new(tt_error *err);
void elf_free(elf *e);                                                          /* NULL is fine */
size_t elf_put(elf *e, elf_section s, const void *data, size_t bytes, size_t align);     /* where it begins; data NULL: zeros */
void elf_poke(elf *e, size_t at, const void *data, size_t bytes);                /* into the table, over what was put there */
/* A function or object at an offset; its size. global: seen by the linker. */
void elf_symbol(elf *e, const char *name, elf_section s, size_t at, size_t bytes, bool function, bool global);
/* The 8 bytes at `at` of the table become the address of offset `to` of a section, or of a symbol of another object. */
void elf_address(elf *e, size_t at, elf_section s, size_t to);
void elf_address_of(elf *e, size_t at, const char *symbol);
/* The 4 bytes at `at` of the code become the distance from their end. */
void elf_distance(elf *e, size_t at, elf_section s, size_t to);
void elf_distance_of(elf *e, size_t at, const char *function);
tt_status elf_write(elf *e, const char *path);

#endif
