/* cpu.c: what to compile for. cpuid says what the machine has (and xgetbv what the system saves of it); a table of levels says
 * what a program compiled for less may use. Decisions in lowering and emission read cg_cpu and nothing else. */
#include "../runtime/aot.h"
#include "../runtime/cpuid.h"
#include "codegen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The four levels of the x86-64 psABI (level 4 has AVX-512 F BW CD DQ VL), and level 4 with instructions for bf16. A later row asks for more. */
static const struct { const char *name; int level; const char *features; int vector_bytes, n_registers; bool fma, avx512, bf16, amx; } levels[] = {
  {"x86-64",         1, "", 16, 16, false, false, false, false},
  {"x86-64-v2",      2, "", 16, 16, false, false, false, false},
  {"x86-64-v3",      3, "", 32, 16, true,  false, false, false},
  {"x86-64-v4",      4, "", 64, 32, true,  true,  false, false},
  {"x86-64-v4+bf16", 4, "+avx512bf16", 64, 32, true, true, true, false},
  {"x86-64-v4+amx",  4, "+amx-tile,+amx-bf16", 64, 32, true, true, false, true},
};
enum { N_LEVELS = sizeof levels / sizeof *levels };
const char *const cg_cpu_names[] = {"native", "x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4+bf16", "x86-64-v4+amx", NULL};

int cg_cpu_rank(const char *name) {
  for (int i = 0; i < N_LEVELS; i++)
    if (!strcmp(levels[i].name, name)) return i;
  return N_LEVELS;
}

static void machine(cg_cpu *cpu) {
  regs seven = cpuid(7, 0), more = cpuid(7, 1);
  int level = cpu->level = rt_cpu_level();
  cpu->vnni = level == 4 && has(seven.c, BIT(11));
  regs zero = cpuid(0, 0);
  cpu->bf16 = level == 4 && has(more.a, BIT(5)) && zero.b == 0x68747541;      /* "Auth"enticAMD: on Intel's (Sapphire Rapids) vdpbf16ps is slower than f32 */
  cpu->amx = level == 4 && rt_cpu_amx();
}

/* Sizes of the data caches: leaf 4 on Intel, 0x8000001D on AMD, both with one cache a subleaf. Where neither tells (some virtual
 * machines hide them), usual sizes. */
static void caches(cg_cpu *cpu) {
  cpu->l1d = 32 << 10, cpu->l2 = 512 << 10, cpu->l3 = 8 << 20;
  bool amd = has(cpuid(0x80000001, 0).c, BIT(22));           /* topology extensions */
  for (unsigned sub = 0; sub < 8; sub++) {
    regs r = cpuid(amd ? 0x8000001D : 4, sub);
    unsigned type = r.a & 31, level = r.a >> 5 & 7;
    if (type == 0) break;
    if (type == 2) continue;                                 /* instructions */
    int64_t bytes = (int64_t)((r.b >> 22) + 1) * ((r.b >> 12 & 0x3ff) + 1) * ((r.b & 0xfff) + 1) * ((int64_t)r.c + 1);
    if (level == 1) cpu->l1d = bytes;
    if (level == 2) cpu->l2 = bytes;
    if (level == 3) cpu->l3 = bytes;
  }
}

static tt_status find_cpu(const char *name, bool runs_here, cg_cpu *cpu, tt_error *err) {
  cg_cpu this_one = {.name = "native", .features = ""};
  machine(&this_one);
  caches(&this_one);
  const char *source = "--cpu";
  if (!name || !*name || !strcmp(name, "native")) {
    source = "TT_CPU";
    name = getenv("TT_CPU");
  }
  int level = this_one.level - 1;
  if (name && *name && strcmp(name, "native")) {
    level = cg_cpu_rank(name);
    if (level < 1 || level == N_LEVELS) return tt_fail(err, TT_INVALID, "error: there is no CPU level named %s\n  at %s\n  fix: use native, x86-64-v2, x86-64-v3, x86-64-v4, x86-64-v4+bf16 or x86-64-v4+amx", name, source);
    bool can = levels[level].level <= this_one.level && (!levels[level].bf16 || has(cpuid(7, 1).a, BIT(5))) && (!levels[level].amx || this_one.amx);
    if (!can && runs_here)
      return tt_fail(err, TT_UNSUPPORTED, "error: this CPU is of level %s and cannot run code for %s\n  at %s\n  fix: use %s or native", levels[this_one.level - 1].name, name, source,
                     this_one.level < 2 ? "native" : levels[this_one.level - 1].name);
    this_one.name = levels[level].name, this_one.features = levels[level].features;
    this_one.level = levels[level].level;
    this_one.vnni = false, this_one.bf16 = levels[level].bf16, this_one.amx = levels[level].amx;
  }
  *cpu = this_one;
  cpu->vector_bytes = levels[level].vector_bytes;
  cpu->n_registers = levels[level].n_registers;
  cpu->fma = cpu->avx2 = cpu->f16c = cpu->masks = levels[level].fma;
  cpu->avx512 = levels[level].avx512;
  return TT_OK;
}

char *cg_cpu_text(const cg_cpu *cpu, char *text, size_t size) {
  regs zero = cpuid(0, 0), one = cpuid(1, 0);
  char vendor[13] = "";
  memcpy(vendor, &zero.b, 4), memcpy(vendor + 4, &zero.d, 4), memcpy(vendor + 8, &zero.c, 4);
  for (char *p = vendor; *p; p++)
    if (*p <= ' ' || *p > '~' || *p == '/') *p = '-';
  unsigned family = one.a >> 8 & 15, model = one.a >> 4 & 15;
  if (family == 6 || family == 15) model |= one.a >> 12 & 0xf0;
  if (family == 15) family += one.a >> 20 & 0xff;
  snprintf(text, size, "%s-%u-%u/v%d/%d", vendor, family, model, cpu->level, cpu->vector_bytes);
  return text;
}

tt_status cg_cpu_get(const char *name, cg_cpu *cpu, tt_error *err) { return find_cpu(name, true, cpu, err); }
tt_status cg_cpu_target(const char *name, cg_cpu *cpu, tt_error *err) { return find_cpu(name, false, cpu, err); }

/* The leaves that LLVM decides by, without what differs from core to core of one machine (the APIC's number). */
char *cg_cpu_identity(const cg_cpu *cpu, char *text, size_t size) {
  size_t n = (size_t)snprintf(text, size, "%s %s v%d/%d/%d", cpu->name, cpu->features ? cpu->features : "", cpu->level, cpu->vector_bytes, cpu->n_registers);
  if (strcmp(cpu->name, "native")) return text;
  regs zero = cpuid(0, 0), one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1), state = cpuid(13, 1), ext = cpuid(0x80000001, 0), ext8 = cpuid(0x80000008, 0);
  unsigned words[] = {zero.b, zero.c, zero.d, one.a, one.c, one.d, seven.b, seven.c, seven.d, more.a, more.b, more.c, more.d, state.a, ext.c, ext.d, ext8.b,
                      cpuid(0x14, 0).b, cpuid(0x19, 0).b, cpuid(0x24, 0).b, saved_state()};
  for (size_t i = 0; i < sizeof words / sizeof *words && n < size; i++) n += (size_t)snprintf(text + n, size - n, " %x", words[i]);
  return text;
}

void cg_cpu_needs(const cg_cpu *cpu, uint32_t *words) {
  if (cpu->bf16) words[4] = BIT(5);
  if (cpu->amx) words[7] = 0x60000, words[8] = BIT(22) | BIT(24);
}
