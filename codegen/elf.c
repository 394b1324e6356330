/* elf.c: writes relocatable object files for x86-64: .text, .rodata and .data.rel.ro with their relocations, and a symbol table. The form is that of
 * the System V ABI; no tool of LLVM's or the system's has a part in it. */
#include "elf.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "../runtime/runtime.h"

typedef struct { char *data; size_t n, cap; } bytes;
typedef struct { Elf64_Sym sym; bool global; } symbol;

struct elf {
  tt_error *err;
  bool failed;
  bytes section[ELF_N_SECTIONS];
  size_t align[ELF_N_SECTIONS];
  bytes relocations[ELF_N_SECTIONS];       /* Elf64_Rela whose symbol is a number of `symbols` */
  bytes names;
  symbol *symbols; size_t n_symbols, cap_symbols;
};

static void fail(elf *e) {
  if (!e->failed) tt_fail(e->err, TT_NO_MEMORY, "error: no memory for an object file\n  at codegen/elf.c\n  fix: free memory");
  e->failed = true;
}

static size_t append(elf *e, bytes *b, const void *data, size_t n, size_t align) {
  size_t at = (b->n + align - 1) / align * align;
  if (at + n > b->cap) {
    size_t cap = 2 * (at + n) + 4096;
    char *more = realloc(b->data, cap);
    if (!more) { fail(e); return 0; }
    b->data = more, b->cap = cap;
  }
  memset(b->data + b->n, 0, at - b->n);
  if (data) memcpy(b->data + at, data, n);
  else memset(b->data + at, 0, n);
  b->n = at + n;
  return at;
}

static size_t add_symbol(elf *e, const char *name, Elf64_Sym sym, bool global) {
  if (e->n_symbols == e->cap_symbols) {
    size_t cap = e->cap_symbols ? 2 * e->cap_symbols : 64;
    symbol *more = realloc(e->symbols, cap * sizeof *more);
    if (!more) { fail(e); return 0; }
    e->symbols = more, e->cap_symbols = cap;
  }
  sym.st_name = name ? (Elf64_Word)append(e, &e->names, name, strlen(name) + 1, 1) : 0;
  e->symbols[e->n_symbols] = (symbol){sym, global};
  return e->n_symbols++;
}

elf *elf_new(tt_error *err) {
  elf *e = calloc(1, sizeof *e);
  if (!e) return tt_fail(err, TT_NO_MEMORY, "error: no memory for an object file\n  at codegen/elf.c\n  fix: free memory"), NULL;
  e->err = err;
  append(e, &e->names, "", 1, 1);
  add_symbol(e, NULL, (Elf64_Sym){0}, false);
  for (Elf64_Half s = ELF_TEXT; s < ELF_N_SECTIONS; s++) {
    e->align[s] = 1;
    add_symbol(e, NULL, (Elf64_Sym){.st_info = ELF64_ST_INFO(STB_LOCAL, STT_SECTION), .st_shndx = s}, false);      /* symbol s is section s */
  }
  return e;
}

void elf_free(elf *e) {
  if (!e) return;
  for (int s = 0; s < ELF_N_SECTIONS; s++) free(e->section[s].data), free(e->relocations[s].data);
  free(e->names.data), free(e->symbols);
  free(e);
}

size_t elf_put(elf *e, elf_section s, const void *data, size_t n, size_t align) {
  if (align > e->align[s]) e->align[s] = align;
  return append(e, &e->section[s], data, n, align);
}

void elf_poke(elf *e, size_t at, const void *data, size_t n) {
  if (!e->failed) memcpy(e->section[ELF_TABLE].data + at, data, n);
}

void elf_symbol(elf *e, const char *name, elf_section s, size_t at, size_t n, bool function, bool global) {
  add_symbol(e, name, (Elf64_Sym){.st_info = ELF64_ST_INFO(global ? STB_GLOBAL : STB_LOCAL, function ? STT_FUNC : STT_OBJECT), .st_shndx = (Elf64_Half)s, .st_value = at, .st_size = n}, global);
}

static size_t undefined(elf *e, const char *name) {
  for (size_t i = ELF_N_SECTIONS; i < e->n_symbols; i++)
    if (e->symbols[i].sym.st_shndx == SHN_UNDEF && !strcmp(e->names.data + e->symbols[i].sym.st_name, name)) return i;
  return add_symbol(e, name, (Elf64_Sym){.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE)}, true);
}

static void relocate(elf *e, elf_section s, size_t at, uint64_t sym, uint32_t type, int64_t addend) {
  Elf64_Rela r = {.r_offset = at, .r_info = ELF64_R_INFO(sym, type), .r_addend = addend};
  append(e, &e->relocations[s], &r, sizeof r, 8);
}

void elf_address(elf *e, size_t at, elf_section s, size_t to) { relocate(e, ELF_TABLE, at, s, R_X86_64_64, (int64_t)to); }
void elf_address_of(elf *e, size_t at, const char *name) { relocate(e, ELF_TABLE, at, undefined(e, name), R_X86_64_64, 0); }
void elf_distance(elf *e, size_t at, elf_section s, size_t to) { relocate(e, ELF_TEXT, at, s, R_X86_64_PC32, (int64_t)to - 4); }
void elf_distance_of(elf *e, size_t at, const char *name) { relocate(e, ELF_TEXT, at, undefined(e, name), R_X86_64_PLT32, -4); }

/* ---- the file */

/* Local symbols stand before global ones; relocations follow. */
static bytes symbol_table(elf *e, size_t *n_local) {
  bytes table = {0};
  size_t *number = calloc(e->n_symbols + 1, sizeof *number), n = 0;
  if (!number) return fail(e), table;
  for (int global = 0; global < 2; global++) {
    for (size_t i = 0; i < e->n_symbols; i++) {
      if (e->symbols[i].global != global) continue;
      append(e, &table, &e->symbols[i].sym, sizeof(Elf64_Sym), 8);
      number[i] = n++;
    }
    if (!global) *n_local = n;
  }
  for (int s = ELF_TEXT; s < ELF_N_SECTIONS; s++) {
    Elf64_Rela *r = (Elf64_Rela *)e->relocations[s].data;
    for (size_t i = 0; i < e->relocations[s].n / sizeof *r; i++) r[i].r_info = ELF64_R_INFO((uint64_t)number[ELF64_R_SYM(r[i].r_info)], ELF64_R_TYPE(r[i].r_info));
  }
  free(number);
  return table;
}

tt_status elf_write(elf *e, const char *path) {
  enum { RELA_TEXT = ELF_N_SECTIONS, RELA_TABLE, SYMTAB, STRTAB, SHSTRTAB, NOTE, N };
  static const char section_names[] = "\0.text\0.rodata\0.data.rel.ro\0.rela.text\0.rela.data.rel.ro\0.symtab\0.strtab\0.shstrtab\0.note.GNU-stack";
  Elf64_Shdr h[N] = {0};
  size_t n_local = 0, name = 1, at;
  bytes table = symbol_table(e, &n_local), file = {0}, *parts[N] = {NULL, &e->section[1], &e->section[2], &e->section[3], &e->relocations[ELF_TEXT], &e->relocations[ELF_TABLE], &table, &e->names};
  Elf64_Ehdr head = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_SYSV}, .e_type = ET_REL, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
                     .e_ehsize = sizeof head, .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = N, .e_shstrndx = SHSTRTAB};
  append(e, &file, &head, sizeof head, 1);
  for (int s = 1; s < N; s++) {
    h[s].sh_name = (Elf64_Word)name;
    name += strlen(section_names + name) + 1;
    bool rela = s == RELA_TEXT || s == RELA_TABLE, loaded = s < ELF_N_SECTIONS;
    h[s].sh_type = rela ? SHT_RELA : s == SYMTAB ? SHT_SYMTAB : s == STRTAB || s == SHSTRTAB ? SHT_STRTAB : SHT_PROGBITS;
    h[s].sh_flags = rela ? SHF_INFO_LINK : !loaded ? 0 : s == ELF_TEXT ? SHF_ALLOC | SHF_EXECINSTR : s == ELF_TABLE ? SHF_ALLOC | SHF_WRITE : SHF_ALLOC;
    h[s].sh_addralign = loaded ? e->align[s] : rela || s == SYMTAB ? 8 : 1;
    h[s].sh_entsize = rela ? sizeof(Elf64_Rela) : s == SYMTAB ? sizeof(Elf64_Sym) : 0;
    h[s].sh_link = rela ? SYMTAB : s == SYMTAB ? STRTAB : 0;
    h[s].sh_info = s == RELA_TEXT ? ELF_TEXT : s == RELA_TABLE ? ELF_TABLE : s == SYMTAB ? (Elf64_Word)n_local : 0;
    if (s == SHSTRTAB) at = append(e, &file, section_names, sizeof section_names, 1), h[s].sh_size = sizeof section_names;
    else at = append(e, &file, parts[s] ? parts[s]->data : NULL, h[s].sh_size = parts[s] ? parts[s]->n : 0, h[s].sh_addralign);
    h[s].sh_offset = at;
  }
  at = append(e, &file, h, sizeof h, 8);
  if (!e->failed) ((Elf64_Ehdr *)file.data)->e_shoff = at;
  tt_status status = e->failed ? TT_NO_MEMORY : rt_write_file(path, file.data, file.n, e->err);
  free(file.data), free(table.data);
  return status;
}
