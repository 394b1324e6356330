/* embedding.c: rows of a table by index, and sums of them. */
#include "../frontend.h"

tt_val tt_f_embedding_at(tt_here here, tt_val index, tt_val w) {
  OPEN("embedding", here, index, w);
  if (!tt_dtype_in(tt_dtype_of(index), TT_INT)) WRONG("give integers", "the index is of type %s", tt_dtype_name(tt_dtype_of(index)));
  if (tt_rank(w) != 2) WRONG("give a table [n, d]", "the table has rank %d", tt_rank(w));
  tt_shape s = tt_shape_of(index);
  if (s.rank == TT_MAX_RANK) WRONG("flatten the index first", "rank %d has no room", s.rank);
  tt_val rows = tt_index_select_at(here, w, 0, tt_flatten_at(here, index, 0));
  s.dim[s.rank++] = tt_dim(w, 1);
  return tt_reshape_at(here, rows, s);
}

/* The parameter weight [n,d] in the scope of the layer; {0}: the error is recorded. */
static tt_val table(tt_call *c, tt_val index, const char *name, int64_t n, int64_t d) {
  if (n < 1 || d < 1) return trace_wrong(c, "give the rows and columns of the table", "%s is a table of %lld x %lld", name, (long long)n, (long long)d);
  tt_scope_push(index, name);
  tt_val w = tt_param(index, "weight", TT_SHAPE(n, d), tt_init_normal(0, 1));
  tt_scope_pop(index);
  return w;
}

tt_val tt_embedding_at(tt_here here, tt_val index, const char *name, int64_t n, int64_t d) {
  OPEN("embedding", here, index);
  return tt_f_embedding_at(here, index, table(&call, index, name, n, d));
}

tt_val tt_f_embedding_bag_at(tt_here here, tt_val index, tt_val w, tt_bag_mode mode) {
  OPEN("embedding_bag", here, index, w);
  if (tt_rank(index) != 2) WRONG("give [bags, indices of each]", "the index has rank %d", tt_rank(index));
  if (mode < TT_BAG_SUM || mode > TT_BAG_MAX) WRONG("use TT_BAG_SUM, TT_BAG_MEAN or TT_BAG_MAX", "there is no mode %d", (int)mode);
  tt_val rows = tt_f_embedding(index, w);
  return mode == TT_BAG_SUM ? tt_sum(rows, TT_AXES(1), false) : mode == TT_BAG_MEAN ? tt_mean(rows, TT_AXES(1), false) : tt_amax(rows, TT_AXES(1), false);
}

tt_val tt_embedding_bag_at(tt_here here, tt_val index, const char *name, int64_t n, int64_t d, tt_bag_mode mode) {
  OPEN("embedding_bag", here, index);
  return tt_f_embedding_bag_at(here, index, table(&call, index, name, n, d), mode);
}
