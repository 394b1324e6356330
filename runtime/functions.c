/* functions.c: the C functions that compiled kernels may call, as a table: machine code refers to no symbol. And the kernel that copies. */
#include <math.h>
#include <string.h>

#include "program.h"

const rt_functions rt_function_table = {
#define FN(name) .name = name,
  RT_FUNCTIONS(FN, FN)
#undef FN
};

void rt_copy(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  size_t bytes = ((const rt_copy_size *)context)->bytes, from = (size_t)begin * RT_COPY_TASK, to = (size_t)end * RT_COPY_TASK;
  (void)scratch;
  if (to > bytes) to = bytes;
  if (from < to) memcpy(args[1] + from, args[0] + from, to - from);
}
