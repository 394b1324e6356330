#include <stdio.h>
#include <tinytorch/tinytorch.h>

static tt_val model(tt_val x, void *arg) {
  x = tt_relu(tt_linear(tt_flatten(x, 1), "fc1", 32));
  return tt_linear(x, "fc2", 10);
}

static int failed(const tt_error *err) { return fprintf(stderr, "%s\n", err->message), 1; }
