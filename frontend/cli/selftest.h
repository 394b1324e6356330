/* selftest.h: every op of the language, JIT against interpreter. */
#ifndef TT_CLI_SELFTEST_H
#define TT_CLI_SELFTEST_H

#include "../../codegen/codegen.h"

typedef struct { int samples, failed; double worst; } selftest_row;      /* worst: units in the last place, or share of the tolerance */
/* All samples of one op, for every type that its row takes, on 1 and 2 threads, for cpu (NULL: native). skip: passes left out. The first failures
 * are printed. */
selftest_row selftest_op(ir_op op, const char *cpu, const char *skip);

#endif
