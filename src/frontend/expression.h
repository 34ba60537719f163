// Expressions over symbolic sizes, as torch.export writes them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace shardwright::frontend {

// The value of `text`, in sympy's constructor form: "Add(Symbol('s34', integer=True),
// Integer(-1))". Conditions give 0 or 1. Throws Error: kBrokenFile (syntax, overflow, division by
// 0), kUnsupported (a function that is not known).
int64_t evaluate(std::string_view text,
                 const std::function<int64_t(const std::string& symbol)>& value_of);

// Python's `//`, `%` and `**` (exponents from 0 to 64). Throw Error as `evaluate` does.
int64_t floor_div(int64_t a, int64_t b);
int64_t floor_mod(int64_t a, int64_t b);
int64_t power(int64_t base, int64_t exponent);

}  // namespace shardwright::frontend
