#include "model.h"

int main(int argc, char **argv) {
  tt_error err = {0};
  tt_shape shape = TT_SHAPE(1, 3, 32, 32);
  tt_model *m = tt_model_new(model, NULL, NULL, &err);
  tt_tensor *x = m ? tt_tensor_new(TT_F32, &shape, &err) : NULL, *y = NULL;
  if (!x || tt_model_load(m, argv[1], &err) || !(y = tt_predict(m, x, &err))) return failed(&err);
  int best = 0;
  for (int64_t i = 0; i < 10; i++)
    if (tt_tensor_at(y, (int64_t[]){0, i}) > tt_tensor_at(y, (int64_t[]){0, best})) best = (int)i;
  printf("class %d\n", best);
  tt_tensor_free(x), tt_tensor_free(y);
  tt_model_free(m);
  return 0;
}
