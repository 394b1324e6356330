/* budget_test.c: a training step within a memory budget: compiled by the JIT it gives the same bits as without, dropout's masks included, on
 * one thread and two, and what its program takes is within the budget; a budget that cannot be met names one that can. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/models/models.h"

static tt_val with_dropout(tt_val x, void *arg) {
  x = tt_relu(tt_batch_norm(tt_conv2d(x, "c1", 8, 3, .padding = 1), "n1"));
  x = tt_dropout(x, 0.3);
  x = tt_relu(tt_batch_norm(tt_conv2d(x, "c2", 8, 3, .padding = 1), "n2"));
  x = tt_dropout(tt_add(x, tt_tanh(tt_conv2d(x, "c3", 8, 3, .padding = 1))), 0.2);
  return tt_linear(tt_flatten(tt_max_pool2d(x, 2), 1), "fc", 10);
}

/* The parameters after three steps, one after another; *bytes: the sum of the program's plan. malloc'ed; NULL: the budget cannot be met. */
static char *trained(tt_model_fn *f, model_config *c, tt_shape s, int threads, int64_t budget, size_t *size, size_t *bytes, tt_error *err) {
  tt_model *m = tt_model_new(f, c, &(tt_model_options){.seed = 3, .n_threads = threads}, err);
  tt_compile_options o = {.train = true, .optimizer = "sgd", .hyper = "momentum=0.9", .memory_budget = budget};
  rt_program *p = NULL;
  char *result = NULL;
  if (tt_model_compile(m, TT_F32, &s, true, &o, &p, err) == TT_OK) {
    *bytes = rt_program_memory(p, threads).total;
    rt_instance *x = rt_instance_new(p, tt_model_team(m, err), err);
    cr_assert(x && rt_params_bind(tt_model_params(m), x, err) == TT_OK, "%s", err->message);
    for (uint32_t i = 0; i < p->n_slots; i++) {
      const rt_slot *slot = &p->slots[i];
      if (slot->kind != RT_INPUT) continue;
      tt_tensor *t = tt_tensor_new(slot->dtype, &slot->shape, err);
      int64_t n = tt_shape_count(&slot->shape);
      for (int64_t k = 0; k < n; k++) {
        if (slot->dtype == TT_F32) ((float *)tt_tensor_data(t))[k] = (float)((k * 7919) % 1000) / 500 - 1;
        if (slot->dtype == TT_I32) ((int32_t *)tt_tensor_data(t))[k] = (int32_t)(k % 10);
        if (slot->dtype == TT_F64) ((double *)tt_tensor_data(t))[k] = 0.05;
      }
      cr_assert_eq(rt_bind(x, slot->name, t, err), TT_OK, "%s", err->message);
      tt_tensor_free(t);
    }
    for (int step = 0; step < 3; step++) cr_assert_eq(rt_run(x, err), TT_OK, "%s", err->message);
    *size = 0;
    rt_params *all = tt_model_params(m);
    for (int i = 0; i < rt_params_count(all); i++) {
      tt_shape shape = tt_tensor_shape(rt_params_at(all, i)->tensor);
      size_t n = (size_t)tt_shape_count(&shape) * tt_dtype_size(tt_tensor_dtype(rt_params_at(all, i)->tensor));
      result = realloc(result, *size + n);
      memcpy(result + *size, tt_tensor_data(rt_params_at(all, i)->tensor), n);
      *size += n;
    }
    rt_instance_free(x);
  }
  rt_program_free(p);
  tt_model_free(m);
  return result;
}

static void check(const char *name, tt_model_fn *f, tt_shape s) {
  model_config c = {.classes = 10};
  size_t size, other, all, bytes;
  tt_error err = {0};
  char *whole = trained(f, &c, s, 2, 0, &size, &all, &err);
  cr_assert(whole, "%s", err.message);
  cr_expect_null(trained(f, &c, s, 2, 1000, &other, &bytes, &err));
  long long least = 0;
  const char *allow = strstr(err.message, "fix: allow ");
  cr_assert(allow && sscanf(allow, "fix: allow %lld", &least) == 1, "%s", err.message);
  cr_expect_lt((size_t)least, all);
  for (int i = 0; i < 4; i++) {
    int64_t budget = least + ((int64_t)all - least) * i / 4;
    err = (tt_error){0};
    char *within = trained(f, &c, s, 1 + i % 2, budget, &other, &bytes, &err);
    cr_assert(within, "%s", err.message);
    cr_expect_leq(bytes, (size_t)budget);
    cr_expect(other == size && !memcmp(whole, within, size), "%s within %lld bytes: other numbers", name, (long long)budget);
    free(within);
  }
  printf("TABLE %-12s a step in %.2f MiB, at least %.2f, to the same bits\n", name, (double)all / (1 << 20), (double)least / (1 << 20));
  free(whole);
}

Test(budget, cnn) { check("cnn", model_cnn, TT_SHAPE(8, 3, 16, 16)); }
Test(budget, resnet20) { check("resnet20", model_resnet20, TT_SHAPE(4, 3, 16, 16)); }
Test(budget, capstone) { check("capstone", model_capstone, TT_SHAPE(8, 3, 8, 8)); }
Test(budget, dropout) { check("dropout", with_dropout, TT_SHAPE(4, 3, 16, 16)); }
