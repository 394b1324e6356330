#include "model.h"

int main(int argc, char **argv) {
  tt_error err = {0};
  tt_fit_result result;
  tt_model *m = tt_model_new(model, NULL, &(tt_model_options){.seed = 1}, &err);
  if (!m || tt_train(m, &(tt_train_options){.data = "shapes:640", .epochs = 2, .lr = 0.05}, &result, &err) || tt_model_save(m, argv[1], &err)) return failed(&err);
  printf("trained %lld steps, loss %.3f\n", (long long)result.steps, result.loss);
  tt_model_free(m);
  return 0;
}
