/* object.c: an object file of LLVM's, read and linked into an image: the sections that are loaded, one after another, code first, with the distances
 * between them written in. A kernel refers to no symbol but its own, so an undefined one is an error (LLVM turns what it has no instruction for
 * into calls of libm), and so is any relocation that is not a distance. */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llvm.h"

typedef struct {
  const char *data; size_t size;
  const Elf64_Ehdr *head;
  const Elf64_Shdr *sections;
  const Elf64_Sym *symbols; size_t n_symbols;
  const char *names;
  size_t *at;                      /* of each section in the image; SIZE_MAX: not in it */
  const char *kernel;
  tt_error *err;
} object;

static bool wrong(object *o, const char *what, const char *which) {
  return tt_fail(o->err, TT_INTERNAL, "error: the code of kernel %s %s %s\n  at codegen/llvm/object.c\n  fix: kernels must be whole: report this", o->kernel, what, which), false;
}

static bool open_object(object *o) {
  o->head = (const void *)o->data;
  if (o->size < sizeof *o->head || memcmp(o->head->e_ident, ELFMAG, SELFMAG) || o->head->e_shoff + (size_t)o->head->e_shnum * sizeof(Elf64_Shdr) > o->size) return wrong(o, "is no", "ELF file");
  o->sections = (const void *)(o->data + o->head->e_shoff);
  for (int i = 0; i < o->head->e_shnum; i++)
    if (o->sections[i].sh_type == SHT_SYMTAB) {
      o->symbols = (const void *)(o->data + o->sections[i].sh_offset);
      o->n_symbols = o->sections[i].sh_size / sizeof *o->symbols;
      o->names = o->data + o->sections[o->sections[i].sh_link].sh_offset;
    }
  for (size_t j = 1; j < o->n_symbols; j++)
    if (o->symbols[j].st_shndx == SHN_UNDEF) return wrong(o, "calls", o->names + o->symbols[j].st_name);
  return true;
}

/* Tables for unwinding are left out: kernels do not throw. */
static bool is_loaded(const object *o, const Elf64_Shdr *s) {
  const char *name = o->data + o->sections[o->head->e_shstrndx].sh_offset + s->sh_name;
  return s->sh_type == SHT_PROGBITS && (s->sh_flags & SHF_ALLOC) && s->sh_size && strcmp(name, ".eh_frame");
}

static bool place(object *o, size_t *bytes) {
  *bytes = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < o->head->e_shnum; i++) {
      const Elf64_Shdr *s = &o->sections[i];
      if (pass == 0) o->at[i] = SIZE_MAX;
      bool code = s->sh_flags & SHF_EXECINSTR;
      if (!is_loaded(o, s) || code != (pass == 0)) continue;
      size_t align = s->sh_addralign ? s->sh_addralign : 1;
      if (align > RT_IMAGE_ALIGN || (s->sh_flags & SHF_WRITE)) return wrong(o, "has", "a section that an image cannot hold");
      o->at[i] = (*bytes + align - 1) / align * align;
      *bytes = o->at[i] + s->sh_size;
    }
  return *bytes <= RT_IMAGE_MAX || wrong(o, "is", "larger than an image may be");
}

static bool relocate(object *o, const Elf64_Shdr *list, char *image) {
  const Elf64_Rela *r = (const void *)(o->data + list->sh_offset);
  size_t section = list->sh_info;
  for (size_t i = 0; o->at[section] != SIZE_MAX && i < list->sh_size / sizeof *r; i++) {
    const Elf64_Sym *s = &o->symbols[ELF64_R_SYM(r[i].r_info)];
    uint32_t type = ELF64_R_TYPE(r[i].r_info);
    if ((type != R_X86_64_PC32 && type != R_X86_64_PLT32) || s->st_shndx >= o->head->e_shnum || o->at[s->st_shndx] == SIZE_MAX || r[i].r_offset + 4 > o->sections[section].sh_size)
      return wrong(o, "has a relocation that is no distance to", s->st_name ? o->names + s->st_name : "a section");
    size_t place_at = o->at[section] + r[i].r_offset;
    int32_t distance = (int32_t)((int64_t)(o->at[s->st_shndx] + s->st_value) + r[i].r_addend - (int64_t)place_at);
    memcpy(image + place_at, &distance, sizeof distance);
  }
  return true;
}

bool em_image(const char *data, size_t size, const char *symbol, const char *kernel, rt_image *image, tt_error *err) {
  object o = {.data = data, .size = size, .kernel = kernel, .err = err};
  *image = (rt_image){0};
  if (!open_object(&o)) return false;
  size_t bytes = 0;
  o.at = malloc((o.head->e_shnum + 1u) * sizeof *o.at);
  bool ok = o.at && place(&o, &bytes);
  char *code = ok ? malloc(bytes + 1) : NULL;
  if (!o.at || (ok && !code)) ok = false, tt_fail(err, TT_NO_MEMORY, "error: no memory to compile\n  at codegen/llvm/object.c\n  fix: free some");
  if (ok) memset(code, 0xcc, bytes);                     /* int3 in the gaps */
  for (int i = 0; ok && i < o.head->e_shnum; i++)
    if (o.at[i] != SIZE_MAX) memcpy(code + o.at[i], data + o.sections[i].sh_offset, o.sections[i].sh_size);
  for (int i = 0; ok && i < o.head->e_shnum; i++)
    if (o.sections[i].sh_type == SHT_RELA) ok = relocate(&o, &o.sections[i], code);
  bool found = false;
  for (size_t j = 1; ok && j < o.n_symbols; j++) {
    const Elf64_Sym *s = &o.symbols[j];
    if (strcmp(o.names + s->st_name, symbol) || s->st_shndx >= o.head->e_shnum || o.at[s->st_shndx] == SIZE_MAX) continue;
    image->entry = o.at[s->st_shndx] + s->st_value;
    found = true;
  }
  if (ok && !found) ok = wrong(&o, "has no function", symbol);
  free(o.at);
  if (!ok) return free(code), false;
  image->data = code, image->bytes = bytes;
  return true;
}
