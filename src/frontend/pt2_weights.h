// The weights and constants of one program of a .pt2 archive.
#pragma once

#include <map>
#include <string>

#include "frontend/json.h"
#include "frontend/symbols.h"
#include "frontend/zip.h"
#include "ir/graph.h"

namespace shardwright::frontend {

// PyTorch's serialised dtype numbers (also of as_scalar_type); nullopt: not supported.
std::optional<DType> dtype_of_number(int64_t number);
// dtype and sizes of a TensorMeta. Throws Error(kUnsupported): a dtype, or a size that `symbols`
// doesn't know.
TensorType type_of(const Field& tensor_meta, const Symbols& symbols);

// Tensors by name, added to `module` (joined with equal ones: the same record in this program, or
// equal bytes, or none, under the same name in another before). The value is an index into
// Module::tensors.
class Weights {
 public:
  Weights(const ZipArchive& archive, ir::Module& module) : archive_(archive), module_(module) {}
  // Reads data/<folder>/<program>_<folder>_config.json if it is there.
  void open(const std::string& program);
  // The logical tensor of `name`, from weights (or constants). Throws Error(kBrokenFile) if it is
  // not there.
  int tensor(const std::string& name, bool in_constants, ir::InputRole role);

 private:
  struct Entry {
    std::string record;
    TensorType type;
    Strides strides;
    int64_t offset = 0;  // elements
    bool trainable = false;
    int index = -1;  // once added
  };
  void read_config(const std::string& folder, const std::string& program,
                   std::map<std::string, Entry>& entries);
  int add(const std::string& name, Entry& entry, ir::InputRole role);
  int find_named(const std::string& name, const TensorType& type) const;
  int find_equal(const std::string& name, const Entry& entry, std::string_view bytes) const;

  const ZipArchive& archive_;
  ir::Module& module_;
  std::map<std::string, Entry> weights_, constants_;
  std::map<std::string, int> by_storage_;  // record, offset, sizes, strides -> tensor
};

}  // namespace shardwright::frontend
