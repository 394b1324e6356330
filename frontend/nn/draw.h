/* draw.h: random numbers in vectors, for one width of them; init.c includes it once for each. It is given
 *
 *     LANES        numbers of 64 bits in a vector; a lane makes the two numbers of one Philox block
 *     TARGET       the attribute that a function needs to have such vectors
 *     MUL, SQRT    products of the lower halves of the lanes; square roots
 *     FIRST, LAST  halves of two vectors' lanes by turns
 *     WIDE(name)   the name with which this width's functions are told from another's
 *
 * and makes WIDE(fill). ROWS vectors go side by side, statement by statement, as one is a long chain of operations that wait for each other. Each operation is rounded as it stands
 * (no multiply-add is contracted), so all widths give the same bits. */
typedef double WIDE(reals) __attribute__((vector_size(8 * LANES)));
typedef uint64_t WIDE(words) __attribute__((vector_size(8 * LANES)));
typedef float WIDE(floats) __attribute__((vector_size(4 * LANES)));
#define INLINE static inline __attribute__((always_inline)) TARGET
#define REALS WIDE(reals)
#define WORDS WIDE(words)

/* Integers under 2^32 from the upper part of 53 bits, under 2^21 from the lower: numbers in (0, 1). The sum of the parts and their offsets, 2^73 and 2^52,
 * is exact; vectors have no conversion of 64-bit integers before AVX-512. */
INLINE REALS WIDE(unit)(WORDS high, WORDS low) {
  REALS x = (REALS)((high & 0xffffffff) | 0x4480000000000000), y = (REALS)((low >> 11 & 0x1fffff) | 0x4330000000000000);
  return ((x - (0x1p73 + 0x1p52) + y) + 0.5) * 0x1p-53;
}

/* tt_philox of counters: two numbers in (0, 1) of each. A lane's upper half holds what is left of a product: nothing reads it. */
INLINE void WIDE(philox)(const WORDS *keys, uint64_t name, const WORDS *counter, REALS *a, REALS *b) {
  WORDS c0[ROWS], c1[ROWS], c2[ROWS], c3[ROWS];
  EACH c0[i] = counter[i], c1[i] = counter[i] >> 32, c2[i] = (WORDS){0} + name, c3[i] = (WORDS){0} + (name >> 32);
  for (int round = 0; round < 10; round++) {
    EACH {
      WORDS p0 = MUL(c0[i], (WORDS){0} + 0xD2511F53u), p1 = MUL(c2[i], (WORDS){0} + 0xCD9E8D57u);
      c0[i] = p1 >> 32 ^ c1[i] ^ keys[2 * round], c1[i] = p1, c2[i] = p0 >> 32 ^ c3[i] ^ keys[2 * round + 1], c3[i] = p0;
    }
  }
  EACH a[i] = WIDE(unit)(c0[i], c1[i]), b[i] = WIDE(unit)(c2[i], c3[i]);
}

/* Two of (0, 1) become two of N(0, 1) (Box & Muller 1958). The logarithm, sine and cosine are fdlibm's, each within an ulp. */
INLINE void WIDE(gauss)(REALS *a, REALS *b) {
  WORDS k[ROWS], q[ROWS], swapped[ROWS];
  REALS f[ROWS], s[ROWS], z[ROWS], w[ROWS], odd[ROWS], even[ROWS], r[ROWS], t[ROWS], sine[ROWS], cosine[ROWS];
  EACH k[i] = ((WORDS)a[i] - 0x3fe6a09e667f3bcd + (1023ull << 52)) >> 52;      /* a = 2^(k - 1023) m, m in sqrt(1/2) .. sqrt(2) */
  EACH f[i] = (REALS)((WORDS)a[i] + (1023ull << 52) - (k[i] << 52)) - 1, s[i] = f[i] / (2 + f[i]);
  EACH z[i] = s[i] * s[i], w[i] = z[i] * z[i];
  EACH odd[i] = z[i] * (6.666666666666735130e-01 + w[i] * (2.857142874366239149e-01 + w[i] * (1.818357216161805012e-01 + w[i] * 1.479819860511658591e-01)));
  EACH even[i] = w[i] * (3.999999999940941908e-01 + w[i] * (2.222219843214978396e-01 + w[i] * 1.531383769920937332e-01));
  EACH {
    REALS e = (REALS)(k[i] | 0x4330000000000000) - 0x1p52 - 1023, half = 0.5 * f[i] * f[i];
    r[i] = SQRT(-2 * (e * 6.93147180369123816490e-01 - ((half - (s[i] * (half + odd[i] + even[i]) + e * 1.90821492927058770002e-10)) - f[i])));
  }
  EACH {                                          /* the angle 2 pi b = t + q pi/2, t in -pi/4 .. pi/4 */
    REALS turned = 4 * b[i] + 0x1p52;
    q[i] = (WORDS)turned, t[i] = (b[i] - (turned - 0x1p52) * 0.25) * 6.28318530717958647693, z[i] = t[i] * t[i];
  }
  EACH sine[i] = t[i] + t[i] * z[i] * (-1.66666666666666324348e-01 + z[i] * (8.33333333332248946124e-03 + z[i] * (-1.98412698298579493134e-04 + z[i] * (2.75573137070700676789e-06 + z[i] * (-2.50507602534068634195e-08 + z[i] * 1.58969099521155010221e-10)))));
  EACH cosine[i] = 1 - (0.5 * z[i] - z[i] * z[i] * (4.16666666666666019037e-02 + z[i] * (-1.38888888888741095749e-03 + z[i] * (2.48015872894767294178e-05 + z[i] * (-2.75573143513906633035e-07 + z[i] * (2.08757232129817482790e-09 + z[i] * -1.13596475577881948265e-11))))));
  EACH swapped[i] = (0 - (q[i] & 1)) & ((WORDS)cosine[i] ^ (WORDS)sine[i]);
  EACH a[i] = (REALS)((WORDS)cosine[i] ^ swapped[i] ^ ((q[i] + 1) & 2) << 62) * r[i], b[i] = (REALS)((WORDS)sine[i] ^ swapped[i] ^ (q[i] & 2) << 62) * r[i];
}

/* Elements `from` to `to`; `from` is even. */
TARGET __attribute__((noinline)) static void WIDE(fill)(const filling *f, int64_t from, int64_t to) {
  uint64_t block = (uint64_t)from / 2;
  WORDS keys[20], lane, counter[ROWS];
  REALS a[ROWS], b[ROWS];
  double scale = f->normal ? f->std : f->width;
  for (int i = 0; i < LANES; i++) lane[i] = (uint64_t)i;
  for (uint32_t i = 0; i < 10; i++) keys[2 * i] = (WORDS){0} + ((uint32_t)f->seed + i * 0x9E3779B9), keys[2 * i + 1] = (WORDS){0} + ((uint32_t)(f->seed >> 32) + i * 0xBB67AE85);
  for (int64_t at = from; at < to; at += 2 * ROWS * LANES, block += ROWS * LANES) {
    EACH counter[i] = lane + (block + (uint64_t)(i * LANES));
    WIDE(philox)(keys, f->hash, counter, a, b);
    if (f->normal) WIDE(gauss)(a, b);
    EACH a[i] = f->low + scale * a[i], b[i] = f->low + scale * b[i];
    if (f->type == TT_F32 && to - at >= 2 * ROWS * LANES)
      EACH {
        WIDE(floats) x = __builtin_convertvector(a[i], WIDE(floats)), y = __builtin_convertvector(b[i], WIDE(floats)), pair[2] = {FIRST(x, y), LAST(x, y)};
        memcpy((float *)f->out + at + 2 * LANES * i, pair, sizeof pair);
      }
    else
      for (int64_t i = 0; i < 2 * ROWS * LANES && i < to - at; i++) ir_store_double(f->type, f->out, at + i, ((const double *)(i & 1 ? b : a))[i / 2]);
  }
}

#undef INLINE
#undef REALS
#undef WORDS
#undef LANES
#undef TARGET
#undef MUL
#undef SQRT
#undef FIRST
#undef LAST
#undef WIDE
