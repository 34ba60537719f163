// Guards: what must hold of the sizes for which a program was exported, as Python conditions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace shardwright::frontend {

// Whether `guard` holds, as in "((L['y'].size()[0] + 2*L['x'].size()[1]) % 5) == 0". `size_of`
// gives the size of an input's dimension. Throws Error(kUnsupported) for what is not understood:
// then nobody knows whether it holds.
bool guard_holds(std::string_view guard,
                 const std::function<int64_t(const std::string& input, int64_t dim)>& size_of);

}  // namespace shardwright::frontend
