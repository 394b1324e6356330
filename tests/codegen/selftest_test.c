/* Every op of the language over its samples, JIT against interpreter, compiled for each level that this CPU can run. Under a sanitizer: native only. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "frontend/cli/selftest.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static void level(const char *name, bool table) {
  cg_cpu cpu;
  tt_error err = {0};
  if (cg_cpu_get(name, &cpu, &err) != TT_OK) {
    printf("SKIPPED op suite for %s: %s\n", name, err.message);
    return;
  }
#ifdef SANITIZED
  if (strcmp(name, "native") != 0) {
    printf("SKIPPED op suite for %s: under a sanitizer the native one is enough\n", name);
    return;
  }
#endif
  int samples = 0, failed = 0;
  if (table) printf("TABLE %-22s %8s %8s %10s   JIT against interpreter, %s\n", "op", "samples", "failed", "worst ulp", name);
  for (int op = 1; op < IR_N_OPS; op++) {
    selftest_row row = selftest_op((ir_op)op, name, NULL);
    if (table) printf("TABLE %-22s %8d %8d %10.3g\n", ir_ops[op].name, row.samples, row.failed, row.worst);
    cr_expect(row.samples > 0, "%s has no sample", ir_ops[op].name);
    samples += row.samples, failed += row.failed;
  }
  printf("TABLE all ops for %s: %d samples, %d failed\n", name, samples, failed);
  cr_assert_eq(failed, 0);
}

Test(ops, native) { level("native", true); }
Test(ops, v2) { level("x86-64-v2", false); }
Test(ops, v3) { level("x86-64-v3", false); }
Test(ops, v4) { level("x86-64-v4", false); }
