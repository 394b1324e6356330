/* types.h: element types, shapes, status and errors. It is all that runtime/ knows of ir/.
 *
 * A tensor type is an element type and a shape of at most TT_MAX_RANK dimensions, each >= 0,
 * stored row-major. A bool is one byte, 0 or 1. f16 and bf16 are stored in two bytes; arithmetic
 * on them is done in f32 and each op's result is rounded to nearest even. */
#ifndef TT_TYPES_H
#define TT_TYPES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TT_API __attribute__((visibility("default")))
#define TT_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define TT_API
#define TT_PRINTF(fmt, first)
#endif

#define TT_MAX_RANK 8

typedef struct { uint16_t bits; } tt_f16;
typedef struct { uint16_t bits; } tt_bf16;

typedef enum {
#define DTYPE(NAME, text, ctype, bytes, cls) TT_##NAME,
#include "types.def"
#undef DTYPE
  TT_N_DTYPES
} tt_dtype;

/* Classes of types, as bit sets over tt_dtype; op rows name them. */
enum {
  TT_REAL = 1 << TT_F32 | 1 << TT_F64 | 1 << TT_F16 | 1 << TT_BF16,
  TT_SINT = 1 << TT_I8 | 1 << TT_I16 | 1 << TT_I32 | 1 << TT_I64,
  TT_UINT = 1 << TT_U8 | 1 << TT_U16 | 1 << TT_U32 | 1 << TT_U64,
  TT_BOOLEAN = 1 << TT_BOOL,
  TT_INT = TT_SINT | TT_UINT,
  TT_NUM = TT_REAL | TT_INT,
  TT_BITS = TT_INT | TT_BOOLEAN,
  TT_ANY = TT_NUM | TT_BOOLEAN,
};
static inline bool tt_dtype_in(tt_dtype t, int set) { return set >> t & 1; }

TT_API size_t tt_dtype_size(tt_dtype t);             /* bytes of an element */
TT_API const char *tt_dtype_name(tt_dtype t);        /* "f32" */
TT_API bool tt_dtype_parse(const char *text, size_t length, tt_dtype *t);

typedef struct {
  int rank;
  int64_t dim[TT_MAX_RANK];
} tt_shape;

TT_API int64_t tt_shape_count(const tt_shape *s);    /* number of elements; 1 for rank 0 */
TT_API bool tt_shape_equal(const tt_shape *a, const tt_shape *b);
/* "f32[2,3]" into text; returns text. */
TT_API char *tt_type_text(tt_dtype t, const tt_shape *s, char *text, size_t size);

typedef enum {
  TT_OK = 0,
  TT_INVALID,      /* the caller's mistake: a wrong shape, name, option */
  TT_IO,           /* a file could not be opened, read or written */
  TT_FORMAT,       /* a file's content is not what it should be */
  TT_NO_MEMORY,
  TT_UNSUPPORTED,  /* understood, but this build or CPU cannot do it */
  TT_INTERRUPTED,  /* the user asked to stop */
  TT_NOT_FINITE,   /* training made a number that is not finite */
  TT_INTERNAL,     /* our own mistake: please report it */
} tt_status;

/* What went wrong, in the caller's hands. The first failure is kept: zero it to use it again. */
typedef struct {
  tt_status status;
  char message[2000];   /* "what\n  at where\n  fix: ..." */
} tt_error;

/* Records the failure in err (which may be NULL) unless it holds one already; returns status. */
TT_API tt_status tt_fail(tt_error *err, tt_status status, const char *format, ...) TT_PRINTF(3, 4);

/* f16 and bf16, round to nearest even, subnormals and NaN kept. */
TT_API float tt_f16_to_f32(tt_f16 x);
TT_API tt_f16 tt_f32_to_f16(float x);
TT_API float tt_bf16_to_f32(tt_bf16 x);
TT_API tt_bf16 tt_f32_to_bf16(float x);

/* Philox 4x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): one block of four words for a counter and a key.
 * Seven rounds are the fewest that pass all of BigCrush there, ten what the authors advise for everything. */
TT_API void tt_philox(int rounds, const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* Of ten rounds: the word that element i of stream `stream` has at step `step` under `seed`: blocks of 64 elements
 * come from 16 counters, so that a vector of 16 lanes uses all four words of its counters:
 * counter = ((i/64)*16 + i%16 as 64 bits, step low word, stream), key = seed, word (i/16)%4. */
TT_API uint32_t tt_random_word(uint64_t seed, uint64_t step, uint32_t stream, uint64_t i);
/* 16 bits of seven rounds (TT_RANDOM_ROUNDS) for element i, as op random gives them: blocks of 32 elements come from 4 counters, so that a counter makes 8 elements and whole
 * vectors of four counters are 32 elements in order: counter = ((i/32)*4 + i%16/4 as 64 bits, step low word, stream), key = seed; of the
 * block's words the first 16 elements are words 1 and 0, the others 3 and 2, each the low half first. */
enum { TT_RANDOM_ROUNDS = 7 };
TT_API uint16_t tt_random_half(uint64_t seed, uint64_t step, uint32_t stream, uint64_t i);

#ifdef __cplusplus
}
#endif
#endif
