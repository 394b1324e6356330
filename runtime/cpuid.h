/* cpuid.h: registers of the instruction cpuid, and what the system saves of the CPU's state. runtime/cpu.c and codegen/cpu.c read them. */
#ifndef TT_CPUID_H
#define TT_CPUID_H

#include <cpuid.h>
#include <stdbool.h>

typedef struct { unsigned a, b, c, d; } regs;
static inline regs cpuid(unsigned leaf, unsigned sub) {
  regs r = {0};
  if (!__get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d)) return (regs){0};
  return r;
}
static inline bool has(unsigned reg, unsigned bits) { return (reg & bits) == bits; }
#define BIT(n) (1u << (n))

/* State that the system saves on a switch: bits 1, 2: SSE, AVX; 5 to 7: AVX-512; 17, 18: AMX. */
static inline unsigned saved_state(void) {
  if (!has(cpuid(1, 0).c, BIT(27))) return 0;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

#endif
