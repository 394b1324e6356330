/* cpu.c: what this CPU can do, from cpuid, and xgetbv for what the system saves of it. */
#define _GNU_SOURCE
#include "aot.h"
#include "cpuid.h"

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

int rt_cpu_level(void) {
  regs one = cpuid(1, 0), seven = cpuid(7, 0), ext = cpuid(0x80000001, 0);
  unsigned state = saved_state();
  bool avx = has(state, 6), zmm = has(state, 0xe6);
  int level = 1;
  if (has(one.c, BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23)) && has(ext.c, BIT(0))) level = 2;      /* sse3 ssse3 cx16 sse4.1 sse4.2 popcnt lahf */
  if (level == 2 && avx && has(one.c, BIT(12) | BIT(22) | BIT(28) | BIT(29)) && has(seven.b, BIT(3) | BIT(5) | BIT(8)) && has(ext.c, BIT(5))) level = 3;
                                                                                                                    /* fma movbe avx f16c, bmi1 avx2 bmi2, lzcnt */
  if (level == 3 && zmm && has(seven.b, BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31))) level = 4;
  return level;
}

bool rt_cpu_amx(void) {
  enum { AMX_BF16 = BIT(22), AMX_TILE = BIT(24) };
  if (!has(saved_state(), 0x60000) || !has(cpuid(7, 0).d, AMX_BF16 | AMX_TILE)) return false;
#if defined(__linux__) && defined(SYS_arch_prctl)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;      /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA: for all threads of the process */
#else
  return false;
#endif
}

/* Without what says nothing of instructions: that a hypervisor runs, or that the system uses xsave. */
void rt_cpu_features(uint32_t words[RT_CPU_WORDS]) {
  regs one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1), state = cpuid(13, 1), ext = cpuid(0x80000001, 0);
  uint32_t all[RT_CPU_WORDS] = {one.c & ~(BIT(27) | BIT(31)), one.d, seven.b, seven.c, more.a, state.a & 15, ext.c, saved_state(), rt_cpu_amx() ? seven.d : seven.d & ~(BIT(22) | BIT(24) | BIT(25))};
  for (int i = 0; i < RT_CPU_WORDS; i++) words[i] = all[i];
}
