/* functions.c: the C functions that compiled kernels may call, as a table: machine code refers to no symbol. */
#include <math.h>

#include "program.h"

const rt_functions rt_function_table = {
#define FN(name) .name = name,
  RT_FUNCTIONS(FN, FN)
#undef FN
};
